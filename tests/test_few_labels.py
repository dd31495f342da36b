"""The curve over few labelled patients: who is left out, the same held-out patients, and what is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from chance_weights import write_chance_weights
from hypothesis import given
from hypothesis import strategies as st
from lisa_folder import write_lisa_folder

from qcnode.artifacts import Artifact
from train import loop
from train.__main__ import main
from train.figures import draw_shares
from train.split import TRAIN, split_subjects, subjects_of
from train.studies.few_labels import INIT, SCRATCH, Point, fewer


@given(st.integers(5, 60), st.integers(0, 9), st.floats(0.01, 1), st.floats(0.01, 1))
def test_fewer_patients_are_among_more_and_nobody_held_out_is_touched(
    count: int, seed: int, one: float, other: float
) -> None:
    part_of = split_subjects({f"S{number}": "" for number in range(count)}, seed=1)
    few, many = (fewer(part_of, share, seed) for share in sorted((one, other)))
    assert few.items() <= many.items() <= part_of.items()
    assert {s for s in part_of if part_of[s] != TRAIN} <= few.keys()
    trained = len(subjects_of(part_of, TRAIN))
    assert len(subjects_of(many, TRAIN)) == max(1, round(max(one, other) * trained))
    assert fewer(part_of, 1, seed) == part_of


def test_the_curve_of_an_artifact_is_drawn_from_scratch_and_from_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    write_lisa_folder(tmp_path / "data", subjects=8)
    write_chance_weights(tmp_path / "chance", tmp_path / "weights")
    config = tmp_path / "tiny.toml"
    config.write_text('width = 2\npreprocessing = "blocks-1"\nvariation = "none"\nepochs = 1\nbatching = "standard"\n')
    command = ["curve", "--data", str(tmp_path / "data"), "--init", str(tmp_path / "weights"), "--config", str(config)]
    command += ["--scratch", str(config)]
    command += ["--artifact", "Noise", "--share", "0.5", "--share", "1", "--seeds", "2", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    with (tmp_path / "out" / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["share"], row["patients"], row["scans"]) for row in rows] == [("50%", "3", "9")] * 2 + [
        ("100%", "6", "18")
    ] * 2
    assert [row["start"] for row in rows] == ["from scratch", "from the weights"] * 2
    assert "| Noise | 50% | 3 | 9 | from scratch | 0." in capsys.readouterr().out
    assert "<svg" in (tmp_path / "out" / "curve.svg").read_text()
    tested = {path.read_text().count("\n") for path in (tmp_path / "out" / "runs").rglob("predictions.csv")}
    assert tested == {4}, "the header, and three scans of the one patient who is held out"
    record = json.loads(next((tmp_path / "out" / "runs").rglob("Noise.json")).read_text())
    assert record["training"]["training_scans"] in (9, 18)
    monkeypatch.setattr(loop, "fed", None)  # so that nothing can be trained
    assert main(command) == 0, "what is finished is kept"
    with (tmp_path / "out" / "curve.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows


def test_a_start_that_cannot_be_is_said_and_the_other_is_drawn(tmp_path: Path) -> None:
    absent = Point(Artifact.CONTRAST, SCRATCH, 1.0, 9, 127, np.empty((0, 0)), "learns to draw from truths alone")
    told = Point(Artifact.CONTRAST, INIT, 1.0, 9, 127, np.array([[0.5, 0.4, 0.6]]))
    assert "<svg" in draw_shares([absent, told], tmp_path / "curve.svg").read_text()
