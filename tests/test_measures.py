"""What was measured on a scan reaches the third task, and only scans that have it count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qcnode.artifacts import Artifact
from qcnode.ensemble.model import Member
from train.sampling.measures import MEASURES, Measuring, measures_loss, measures_of, targets_of


def test_a_sidecar_is_read_and_what_is_left_of_the_contrast_is_reckoned(tmp_path: Path) -> None:
    record = tmp_path / "scan.json"
    assert measures_of(record) == {}
    record.write_text(json.dumps({"measured": {"clean_contrast": -0.3, "contrast_left": 0.5, "strain": 0.1}}))
    assert measures_of(record)["contrast_seen"] == pytest.approx(0.15)
    record.write_text(json.dumps({"effects": {}}))  # of a copy: there is a record, and nothing of this in it
    assert measures_of(record) == {}


def test_targets_are_in_units_and_unknown_where_nothing_was_measured() -> None:
    targets = targets_of([{"tilt_degrees": 25.0, "offset_mm": 900.0, "cut_share": 0.0}, {}], Artifact.POSITIONING)
    known = dict(zip(MEASURES[Artifact.POSITIONING], targets[0].tolist(), strict=True))
    assert [known[key] for key in ("tilt_degrees", "offset_mm", "cut_share")] == [2.5, 6.0, 0.0]  # no further than 6
    assert np.isnan(known["nod_degrees"])  # in no record of an earlier simulation
    assert np.isnan(targets[1]).all()
    assert targets_of([], Artifact.NOISE).shape == (0, 1)


def test_the_loss_of_a_hand_worked_example() -> None:
    said = torch.tensor([[1.0, 0.1], [9.0, 9.0]], requires_grad=True)
    targets = torch.tensor([[0.0, 0.0], [float("nan"), float("nan")]])
    loss = measures_loss(said, targets)
    # beyond .3: |d| - .15; within: d² / .6
    assert loss.item() == pytest.approx(((1 - 0.15) + 0.01 / 0.6) / 2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert said.grad is not None
    assert said.grad[1].tolist() == [0.0, 0.0]
    assert measures_loss(said, torch.full((2, 2), float("nan"))).item() == 0.0


@pytest.mark.parametrize("artifact", Artifact)
def test_a_member_says_the_same_with_the_third_task_beside_it(artifact: Artifact) -> None:
    torch.manual_seed(0)
    member = Member("plane-profiles", 4).eval()
    images = torch.rand(2, 1, 40, 144, 144)
    with torch.no_grad():
        output, named = Measuring(member, artifact).eval()(images)
        assert torch.equal(output.severity, member(images).severity)
    assert named.shape == (2, len(MEASURES[artifact]))
