"""Figures by group of scans, and the confusion tables, against hand-worked ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcnode.artifacts import Artifact, Plane
from train.dataset import SUBJECTS, Scan
from train.studies.groups import groups_of
from train.studies.report import Graded, by_group, confusion_table, group_table, record

TRUTH = np.array([0, 1, 2, 0, 1, 2, 0])
CALLED = np.array([0, 1, 2, 0, 0, 1, 0])
GROUPS = [("axial", "child")] * 3 + [("axial",)] * 3 + [("sagittal",)]


@pytest.fixture
def graded() -> dict[Artifact, Graded]:
    return {Artifact.MOTION: Graded([f"LISA_{n:04d}" for n in range(7)], TRUTH, np.eye(3)[CALLED])}


def test_each_groups_figure_is_of_its_scans_alone(graded: dict[Artifact, Graded]) -> None:
    groups = by_group(graded, GROUPS)
    assert {name: group.scans for name, group in groups.items()} == {"axial": 6, "child": 3, "sagittal": 1}
    child, axial = (groups[name].macro_f1[Artifact.MOTION] for name in ("child", "axial"))
    assert child is not None
    assert axial is not None
    assert child.value == 1
    # none: both found, one more called so (4/5); moderate: one of two, one more (1/2); severe: one of two (2/3)
    assert axial.value == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    assert axial.low <= axial.value <= axial.high
    assert groups["sagittal"].macro_f1[Artifact.MOTION] is None  # neither a moderate nor a severe one


def test_one_subject_alone_has_no_interval(graded: dict[Artifact, Graded]) -> None:
    its = {artifact: replace(each, subjects=["LISA_0001"] * 7) for artifact, each in graded.items()}
    assert "| axial | 6 (1) | 0.66 | 0.66 |" in group_table(by_group(its, GROUPS)).splitlines()


def test_the_tables_and_the_record_say_the_same(graded: dict[Artifact, Graded]) -> None:
    rows = group_table(by_group(graded, GROUPS)).splitlines()
    assert rows[0] == "| macro F1 (95 %) | scans (subjects) | Motion | mean |"
    assert rows[2].startswith("| axial | 6 (6) | 0.66 (")
    assert rows[-1] == "| sagittal | 1 (1) | – | – |"
    assert confusion_table(graded).splitlines()[-1] == "| Motion | 3, 0, 0 | 1, 1, 0 | 0, 1, 1 |"
    its = record(graded, GROUPS)["Motion"]
    assert its["confusion"] == [[3, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert isinstance(its["groups"], dict)
    assert its["groups"]["child"]["scans"] == 3
    assert its["groups"]["sagittal"]["macro_f1"] is None


def test_groups_are_plane_kind_and_what_was_written_down(tmp_path: Path) -> None:
    (tmp_path / SUBJECTS).write_text("subject,kind\nLISA_0001,newborn\n")
    scans = [
        Scan(tmp_path / f"LISA_000{n}_LF_{plane.suffix}.nii.gz", f"LISA_000{n}", plane, (0,) * 7)
        for n, plane in ((1, Plane.AXIAL), (2, Plane.SAGITTAL), (3, Plane.CORONAL))
    ]
    for scan, length_mm in zip(scans[1:], (129.9, 130.0), strict=True):
        scan.record_path.write_text(json.dumps({"weighting": "T1w", "brain_length_mm": length_mm}))
    assert groups_of(tmp_path, scans) == [
        ("plane: axial", "subject: newborn"),
        ("plane: sagittal", "weighting: T1w", "size: as a newborn's"),
        ("plane: coronal", "weighting: T1w", "size: as an infant's"),
    ]
