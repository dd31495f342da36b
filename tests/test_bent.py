"""Bent heads are drawn by number, as severe as they are said to be, and an encoder learns from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lisa_folder import write_lisa_folder
from safetensors.torch import load_file

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.atlas import SIDE
from qcnode.errors import ConfigError
from train import bend
from train.__main__ import main
from train.config import FitConfig
from train.simulation import bent
from train.simulation.bent import BentHeads, coarse
from train.simulation.brains import anatomy, phantoms
from train.simulation.contrasts import head
from train.simulation.draws import draw
from train.simulation.renders import COARSE, rendered
from train.simulation.scans import clean_scan
from train.simulation.severity import severity_of
from train.simulation.upright import frame_of

CONFIG = FitConfig(encoder="atlas-resnet", width=2, pretrain_epochs=2, bf16=False)


@pytest.fixture(scope="module")
def heads() -> BentHeads:
    torch.set_num_threads(1)
    return BentHeads(phantoms(2), seed=1, batches=4).with_shapes()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bent, "SCANS", 3)
    monkeypatch.setattr(bent, "HEADS", 1)
    monkeypatch.setattr(bent, "_SIGNALS", 1)
    monkeypatch.setattr(bend, "_EPOCH_BATCHES", 2)
    monkeypatch.setattr(bend, "_VALIDATION_BATCHES", 1)


@pytest.mark.parametrize("artifact", [None, Artifact.NOISE, Artifact.MOTION, Artifact.ZIPPER, Artifact.DISTORTION])
def test_a_coarse_heads_blocks_are_those_of_the_finer_one(artifact: Artifact | None) -> None:
    torch.set_num_threads(1)
    generator = np.random.default_rng(11)
    its = anatomy(phantoms(3)[1])
    fine = head(its, "T2w", 165.0, generator)
    levels = dict.fromkeys(Artifact, Severity.NONE) | ({artifact: Severity.SEVERE} if artifact else {})
    drawn = draw(np.random.default_rng(5), levels, slight=False)
    scan = clean_scan(fine, Plane.AXIAL, generator)
    rough = replace(scan, head=coarse(fine, frame_of(its.brain), generator).head)
    seen = rendered(scan, drawn, np.random.default_rng(1)).blocks.astype(np.float32)
    made = rendered(rough, drawn, np.random.default_rng(1), COARSE, has_fields=False)
    assert made.fields is None
    assert np.corrcoef(made.blocks.astype(np.float32).ravel(), seen.ravel())[0, 1] > 0.92


def test_a_batch_is_its_numbers_own(heads: BentHeads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bent, "HEADS", 1)
    first, again, other = heads[0], heads[0], heads[1]
    assert torch.equal(first.cubes, again.cubes)
    assert torch.equal(first.sizes, again.sizes)
    assert first.cubes.shape[1:] == (SIDE, SIDE, SIDE)
    assert not torch.equal(first.cubes[0], other.cubes[0])


def test_a_batch_holds_each_severity_alike_and_as_bent_as_it_says(heads: BentHeads) -> None:
    batch = heads[2]
    counts = np.bincount(batch.severities, minlength=len(Severity))
    assert counts.min() > 0.7 * counts.max() > 5
    for severity, (displacement_mm, strain) in zip(batch.severities.tolist(), batch.sizes.tolist(), strict=True):
        measured = {"displacement_mm": displacement_mm, "strain": strain}
        assert severity_of(Artifact.DISTORTION, measured) == severity
    assert 0.7 < batch.is_upright.float().mean() < 1


@pytest.mark.usefixtures("short")
def test_an_encoder_is_trained_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = phantoms(3)
    saved = bend.Stage.save

    def interrupted(*arguments: object) -> None:
        saved(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    whole, halved = tmp_path / "whole", tmp_path / "halved"
    for folder in (whole, halved):
        folder.mkdir()
    bend.bend(CONFIG, found[:2], found[2:], whole, workers=1)
    with monkeypatch.context() as once:
        once.setattr(bend.Stage, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bend.bend(CONFIG, found[:2], found[2:], halved, workers=1)
    first = load_file(halved / "encoder.safetensors")
    bend.bend(CONFIG, found[:2], found[2:], halved, workers=1)
    ours, theirs = (load_file(folder / "encoder.safetensors") for folder in (halved, whole))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)
    assert not torch.equal(first["stem.0.weight"], ours["stem.0.weight"])


@pytest.mark.usefixtures("short")
def test_fit_keeps_the_frozen_encoder_that_the_command_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, run, out = tmp_path / "lisa", tmp_path / "bent", tmp_path / "run"
    found = phantoms(3)
    monkeypatch.setattr("train.simulation.brains.sources", lambda _: [])
    monkeypatch.setattr("train.simulation.brains.phantoms", lambda _: found)
    write_lisa_folder(data, subjects=6)
    config = tmp_path / "site.toml"
    config.write_text(
        'encoder = "atlas-resnet"\nwidth = 2\nepochs = 1\nfrozen = true\npretrain_epochs = 1\nbf16 = false\n'
    )
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    subjects = [f"LISA_{its.patient:04d}" for its in found]
    (earlier / "split.json").write_text(json.dumps(dict(zip(subjects, ("train", "train", "validation"), strict=True))))
    arguments = ["bend", str(tmp_path), "--out", str(run), "--start", str(earlier), "--config", str(config)]
    assert main([*arguments, "--workers", "1"]) == 0
    arguments = ["fit", "--data", str(data), "--out", str(out), "--config", str(config), "--start", str(run)]
    assert main([*arguments, "--artifact", "Distortion", "--cache", str(tmp_path)]) == 0
    encoder, member = load_file(run / "encoder.safetensors"), load_file(out / "Distortion.safetensors")
    for name, its in encoder.items():  # batch norms' statistics as well
        assert torch.equal(member[f"encoder.{name}"], its.half() if its.is_floating_point() else its), name


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not compact-resnet"):
        bend.bend(FitConfig(), phantoms(2), phantoms(2), tmp_path)


def test_a_frozen_encoder_has_to_come_from_somewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lisa_folder(tmp_path / "lisa", subjects=6)
    (tmp_path / "site.toml").write_text("width = 2\nepochs = 1\nfrozen = true\n")
    arguments = ["fit", "--data", str(tmp_path / "lisa"), "--out", str(tmp_path / "run"), "--artifact", "Noise"]
    assert main([*arguments, "--config", str(tmp_path / "site.toml")]) == 2
    assert "--start or --init" in capsys.readouterr().err


def test_a_split_without_these_subjects_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.simulation.brains.sources", lambda _: [])
    (tmp_path / "split.json").write_text(json.dumps({"LISA_0001": "train"}))
    arguments = ["bend", str(tmp_path), "--out", str(tmp_path / "run"), "--start", str(tmp_path)]
    assert main(arguments) == 2
