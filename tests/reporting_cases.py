"""Sources and assessments that the tests of the documents share."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.imaging.swoop import classic_series, swoop_series, to_bytes
from qcnode.imaging.volume import Volume, volume_from_instances
from qcnode.verdict import Assessment, Grade, not_assessable, verdict

AT = datetime(2026, 3, 1, 14, 3, 22, tzinfo=UTC)
CLEAN = Grade(Severity.NONE, (0.97, 0.02, 0.01))
MODERATE = Grade(Severity.MODERATE, (0.1, 0.85, 0.05))
SEVERE = Grade(Severity.SEVERE, (0.011, 0.033, 0.956))
PREVIEW = tuple(np.full(shape, 90, np.uint8) for shape in ((140, 110), (96, 110), (96, 140)))


def swoop(frames: int = 36, **options: object) -> Dataset:
    """One small Enhanced MR object; it has no birth date, sex, accession number or referring physician."""
    return swoop_series(_volume(frames), patient_id="S-1", generator=np.random.default_rng(1), **options)  # type: ignore[arg-type]


def classic(slices: int = 5) -> list[Dataset]:
    """A small classic series."""
    return classic_series(_volume(slices), patient_id="S-1", generator=np.random.default_rng(2))


def _volume(slices: int) -> Volume:
    array = np.random.default_rng(0).uniform(0, 1000, (slices, 12, 10)).astype(np.float32)
    affine = np.array([[0, 0, -1.6, 8], [0, -1.6, 0, 9], [5, 0, 0, -80], [0, 0, 0, 1]], float)
    return Volume(array, affine)


def as_bytes(*series: Dataset) -> list[bytes]:
    return [to_bytes(dataset) for dataset in series]


def assessment(**grades: Grade) -> Assessment:
    """An assessment by the default policy; artifacts that are not named are clean."""
    scores = {artifact: grades.get(artifact.value, CLEAN) for artifact in Artifact}
    return Assessment(verdict(scores), "1.2.3", Plane.AXIAL, scores, "briqa-3f9a12c4", preview=PREVIEW)


def in_slices(*series: Dataset, slices: tuple[int, ...] = (1, 2)) -> Assessment:
    """A severe zipper in these slices of the series, noise in one of them, motion in all of it."""
    sources = volume_from_instances(as_bytes(*series)).sources
    one = assessment(
        Zipper=replace(SEVERE, slices=slices),
        Noise=replace(MODERATE, slices=slices[:1]),
        Motion=replace(MODERATE, slices=()),
    )
    pictures = {number: np.full((146, 120), 90, np.uint8) for number in slices}
    return replace(one, sources=sources, pictures=pictures, counted_from="the feet")


def ungraded(why: str = "Slice 17 of 36 is missing; send the series again.") -> Assessment:
    return Assessment(not_assessable(why), "1.2.3", ensemble="briqa-3f9a12c4")


ASSESSMENTS = {
    "accept": assessment(),
    "review": assessment(Zipper=MODERATE, Contrast=MODERATE),
    "rescan": assessment(Motion=SEVERE, Positioning=SEVERE, Noise=MODERATE),
    "rescan for everything": assessment(**{artifact.value: SEVERE for artifact in Artifact}),
    "not_assessable": ungraded(),
}


def run_tool(name: str, *arguments: str | Path) -> str:
    """What another maker's checker prints about files; skips where it is not installed."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed (Debian packages dicom3tools and dcmtk have the checkers)")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr
