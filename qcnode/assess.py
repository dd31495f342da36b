"""Instances → Assessment: what the node, `qcnode score` and a remote worker all call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from qcnode.artifacts import Artifact
from qcnode.config import Eligibility
from qcnode.errors import Excluded, NotAssessable
from qcnode.imaging.eligibility import check_eligible
from qcnode.imaging.likeness import check_assessable
from qcnode.imaging.preprocess import network_input, shown_slices
from qcnode.imaging.preview import sections, slice_pictures
from qcnode.imaging.stack import UNREADABLE
from qcnode.imaging.volume import Volume, volume_from_instances
from qcnode.verdict import DEFAULT_POLICY, Assessment, Grade, Policy, not_assessable, verdict, worst_in_slices

PICTURES = 4  # of slices that carry the worst grade


class Grader(Protocol):
    """What grades a network input: the ensemble, or a test's stand-in for it."""

    @property
    def id(self) -> str:
        """Names the weights."""

    @property
    def contrasts(self) -> frozenset[str]:
        """The contrasts it was made for."""

    @property
    def preprocessing(self) -> str:
        """How its network input is made, by name."""

    def grade(self, network_input: NDArray[np.float32]) -> dict[Artifact, Grade]:
        """The seven grades of one network input."""

    def located(
        self, grades: Mapping[Artifact, Grade], network_input: NDArray[np.float32], shown: NDArray[np.intp]
    ) -> dict[Artifact, Grade]:
        """The same grades with the slices that carry them; `shown` is what `shown_slices` makes of the volume."""


def assess(
    instances: Sequence[bytes],
    ensemble: Grader,
    policy: Policy = DEFAULT_POLICY,
    eligibility: Eligibility | None = None,
) -> Assessment:
    """Grade one series from its instances (Part 10 bytes, any order).

    What cannot be graded comes back as an assessment too: not_assessable with its reason, or excluded with its reason.
    """
    rules = eligibility or Eligibility()

    def build() -> Volume:
        check_eligible(headers, rules, ensemble.contrasts)
        return volume_from_instances(instances)

    headers = [header for header in map(_header, instances) if header is not None]
    series_uid = next((uid for header in headers if (uid := _series_uid(header))), None)
    if not headers:
        why = "None of the instances is readable DICOM; send the series again."
        return Assessment(not_assessable(why), ensemble=ensemble.id)
    return _assess(build, ensemble, policy, rules.minimum_slices, series_uid)


def assess_volume(
    volume: Volume, ensemble: Grader, policy: Policy = DEFAULT_POLICY, eligibility: Eligibility | None = None
) -> Assessment:
    """Grade one volume that did not come as DICOM."""
    return _assess(lambda: volume, ensemble, policy, (eligibility or Eligibility()).minimum_slices, None)


def assess_files(paths: Sequence[Path]) -> Assessment:
    """Grade the one series that these files hold, with the shipped ensemble and the default policy."""
    from qcnode.ensemble.runtime import Ensemble

    return assess([path.read_bytes() for path in paths], Ensemble.load(None))


def _assess(
    build: Callable[[], Volume], ensemble: Grader, policy: Policy, minimum_slices: int, series_uid: str | None
) -> Assessment:
    seconds: dict[str, float] = {}
    volume: Volume | None = None
    started = perf_counter()

    def lap(stage: str) -> None:
        seconds[stage] = round(perf_counter() - started - sum(seconds.values()), 4)

    try:
        volume = build()
        check_assessable(volume, minimum_slices)
        lap("volume")
        images = network_input(volume, ensemble.preprocessing)
        grades = ensemble.grade(images)
        lap("grading")
        grades = ensemble.located(grades, images, shown_slices(volume, ensemble.preprocessing))
        lap("slices")
    except Excluded as error:
        return Assessment(not_assessable(str(error)), series_uid, ensemble=ensemble.id, excluded=str(error))
    except NotAssessable as error:
        preview = sections(volume) if volume is not None and np.isfinite(volume.array).all() else ()
        plane = volume.plane if volume is not None else None
        return Assessment(
            not_assessable(str(error)), series_uid, plane, ensemble=ensemble.id, seconds=seconds, preview=preview
        )
    preview = sections(volume)
    worst = worst_in_slices(grades)
    pictures = {} if worst is None else slice_pictures(volume, _some(grades[worst].slices or ()))
    lap("preview")
    said = Assessment(verdict(grades, policy), series_uid, volume.plane, grades, ensemble.id, seconds, None, preview)
    return replace(said, sources=volume.sources, pictures=pictures, counted_from=volume.counted_from)


def _some(slices: Sequence[int]) -> list[int]:
    """As many as there is room for, evenly from among them: the outermost are the least certain."""
    count = min(len(slices), PICTURES)
    return [slices[(2 * place + 1) * len(slices) // (2 * count)] for place in range(count)]


def _header(instance: bytes) -> Dataset | None:
    try:
        return dcmread(BytesIO(instance), stop_before_pixels=True)
    except UNREADABLE:
        return None


def _series_uid(header: Dataset) -> str | None:
    try:
        return str(header.SeriesInstanceUID) or None
    except UNREADABLE:  # missing, or damaged
        return None
