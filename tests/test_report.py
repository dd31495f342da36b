"""Figures by group of scans, and the confusion tables, against hand-worked ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qcnode.artifacts import Artifact, Plane
from qcnode.ensemble.weights import Figures
from train.dataset import SUBJECTS, Scan
from train.studies.groups import groups_of
from train.studies.report import (
    Graded,
    by_group,
    confusion_table,
    figures,
    group_table,
    macro_f1s,
    record,
    table,
)

TRUTH = np.array([0, 1, 2, 0, 1, 2, 0])
CALLED = np.array([0, 1, 2, 0, 0, 1, 0])
GROUPS = [("axial", "child")] * 3 + [("axial",)] * 3 + [("sagittal",)]


@pytest.fixture
def graded() -> dict[Artifact, Graded]:
    return {Artifact.MOTION: Graded([f"LISA_{n:04d}" for n in range(7)], TRUTH, np.eye(3)[CALLED])}


def cells(table: str) -> list[list[str]]:
    """What stands in a Markdown table, row by row, without the line beneath its head."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [rows[0], *rows[2:]]


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
    assert ["axial", "6 (1)", "0.66", "0.66"] in cells(group_table(by_group(its, GROUPS)))
    assert "–" not in table({artifact: figures(each) for artifact, each in its.items()}, macro_f1s(its))


def test_the_tables_and_the_record_say_the_same(graded: dict[Artifact, Graded]) -> None:
    rows = cells(group_table(by_group(graded, GROUPS)))
    assert rows[0] == ["macro F1 (95 %)", "scans (subjects)", "Motion", "mean"]
    assert rows[1][:2] == ["axial", "6 (6)"]
    assert rows[1][2].startswith("0.66 (")
    assert rows[-1] == ["sagittal", "1 (1)", "–", "–"]
    assert cells(confusion_table(graded))[-1] == ["Motion", "3, 0, 0", "1, 1, 0", "0, 1, 1"]
    its = record(graded, GROUPS)["Motion"]
    assert its["confusion"] == [[3, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert isinstance(its["groups"], dict)
    assert its["groups"]["child"]["scans"] == 3
    assert its["groups"]["sagittal"]["macro_f1"] is None


def test_every_figure_has_an_interval_and_the_baselines_stand_beside_macro_f1(graded: dict[Artifact, Graded]) -> None:
    its = {artifact: figures(each) for artifact, each in graded.items()}
    one = its[Artifact.MOTION]
    assert one.challenge_mean_interval is not None
    assert one.calibration_error_interval is not None
    assert one.challenge_mean_interval[0] < one.challenge_mean < one.challenge_mean_interval[1]
    assert one.calibration_error_interval[0] <= one.calibration_error <= one.calibration_error_interval[1]
    always = {artifact: replace(each, probabilities=np.eye(3)[[0] * 7]) for artifact, each in graded.items()}
    forests = macro_f1s(always)
    f1, others = (cells(each) for each in table(its, forests).split("\n\n"))
    assert f1[0] == ["artifact", "macro F1 (95 %)", "forest of metrics (95 %)", "always the commonest"]
    assert f1[1][2].split()[0] == f1[1][3] == "0.20"  # always none: 3 of 7
    assert f1[-1] == ["mean", f"**{one.macro_f1.value:.2f}**", "0.20", "0.20"]
    assert others[1][0] == "Motion"
    assert all(" – " in cell for cell in others[1][1:])
    assert record(graded, forests=forests)["Motion"]["forest_macro_f1"] == forests[Artifact.MOTION].model_dump()
    assert "forest" not in table(its)
    assert "forest_macro_f1" not in record(graded)["Motion"]


def test_figures_of_a_manifest_from_before_are_told_without_the_intervals_it_lacks(
    graded: dict[Artifact, Graded],
) -> None:
    known = figures(graded[Artifact.MOTION]).model_dump(
        exclude={"challenge_mean_interval", "calibration_error_interval"}
    )
    old = Figures.model_validate(known)
    _, others = (cells(each) for each in table({Artifact.MOTION: old}).split("\n\n"))
    assert (others[1][1], others[1][4]) == (f"{old.challenge_mean:.2f}", f"{old.calibration_error:.2f}")


def test_columns_are_aligned_and_fit_a_terminal(graded: dict[Artifact, Graded]) -> None:
    one = figures(graded[Artifact.MOTION])
    for each in table(dict.fromkeys(Artifact, one), dict.fromkeys(Artifact, one.macro_f1)).split("\n\n"):
        assert len({len(line) for line in each.splitlines()}) == 1
        assert len(each.splitlines()[0]) <= 120


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
