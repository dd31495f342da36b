"""What is fuzzed: each target takes the instances of a series and ends in a result or in one of qcnode's errors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from qcnode.artifacts import Artifact, Severity
from qcnode.assess import assess
from qcnode.config import Completeness, Eligibility
from qcnode.errors import QcnodeError
from qcnode.imaging.eligibility import check_eligible
from qcnode.imaging.likeness import check_assessable
from qcnode.imaging.preprocess import PREPROCESSING
from qcnode.imaging.stack import UNREADABLE
from qcnode.imaging.volume import volume_from_instances
from qcnode.intake.completeness import AssociationState, completeness
from qcnode.intake.facts import Facts, read_facts
from qcnode.reporting.documents import documents
from qcnode.score import find_scans, grade, result
from qcnode.verdict import Grade

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Target = Callable[[Sequence[bytes], Path], None]


class Unmoved:
    """A grader that says the same of everything: what is fuzzed lies before and after the networks."""

    id = "unmoved"
    contrasts = frozenset({"T2w"})
    preprocessing = PREPROCESSING

    def grade(self, network_input: NDArray[np.float32]) -> dict[Artifact, Grade]:
        """Severe throughout, so that each kind of document is made."""
        assert np.isfinite(network_input).all()
        return dict.fromkeys(Artifact, Grade(Severity.SEVERE, (0.1, 0.2, 0.7)))

    def located(
        self, grades: Mapping[Artifact, Grade], network_input: NDArray[np.float32], shown: NDArray[np.intp]
    ) -> dict[Artifact, Grade]:
        """By the first slice and the last, so that documents refer to them."""
        return {artifact: replace(grade, slices=(0, len(shown) - 1)) for artifact, grade in grades.items()}


def facts(instances: Sequence[bytes], folder: Path) -> None:
    """What the listener and the assembling job do: facts, their way through the ledger, completeness."""
    found = []
    for instance in instances:
        try:
            found.append(read_facts(instance))
        except QcnodeError:
            continue
    assert [Facts.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))) for one in found] == found
    for state in AssociationState:
        completeness(found, last_received=NOW, association=state, now=NOW, settings=Completeness())


def eligible(instances: Sequence[bytes], folder: Path) -> None:
    """Whether the series is for assessment."""
    headers = []
    for instance in instances:
        try:
            headers.append(dcmread(BytesIO(instance), stop_before_pixels=True))
        except UNREADABLE:
            continue
    check_eligible(headers, Eligibility(minimum_slices=4), Unmoved.contrasts)


def volume(instances: Sequence[bytes], folder: Path) -> None:
    """Instances → volume, and whether a head is in it."""
    check_assessable(volume_from_instances(instances), 4)


def score(instances: Sequence[bytes], folder: Path) -> None:
    """`qcnode score` on a folder."""
    for path in folder.iterdir():
        path.unlink()
    for number, instance in enumerate(instances):
        (folder / f"{number:03d}.dcm").write_bytes(instance)
    for scan in find_scans([folder]):
        json.dumps(
            result(scan.path, grade(scan, Unmoved(), eligibility=Eligibility(minimum_slices=4))), allow_nan=False
        )


def reports(instances: Sequence[bytes], folder: Path) -> None:
    """The whole of the grading process but its networks: assessment and documents."""
    assessment = assess(instances, Unmoved(), eligibility=Eligibility(minimum_slices=4))
    if assessment.excluded is None:
        documents(assessment, instances, revision=1, at=NOW, predecessor_uid=None)


TARGETS: dict[str, Target] = {one.__name__: one for one in (facts, eligible, volume, score, reports)}


def run(target: str, instances: Sequence[bytes], folder: Path) -> bool:
    """Run one case: True for a result, False for one of qcnode's errors; anything else is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of what is wrong with the bytes
        try:
            TARGETS[target](instances, folder)
        except QcnodeError:
            return False
    return True
