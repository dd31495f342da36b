"""The whole way from a LISA folder to weights that the node loads, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lisa_folder import write_lisa_folder
from safetensors.torch import load_file

from qcnode.artifacts import Artifact
from qcnode.ensemble.runtime import Ensemble
from qcnode.ensemble.weights import read_manifest
from qcnode.imaging.preprocess import INPUT_SHAPE
from train.__main__ import main
from train.loop import Shared

TINY = ["--width", "2", "--epochs", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lisa")
    write_lisa_folder(folder, subjects=8)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    config = out / "tiny.toml"
    config.write_text("shared_epochs = 1\nseed = 3\n")
    assert main(["fit", "--data", str(data), "--out", str(out), "--config", str(config), *TINY]) == 0
    return out


def test_a_run_leaves_a_member_and_its_record_for_every_artifact(run: Path) -> None:
    for artifact in Artifact:
        record = json.loads((run / f"{artifact}.json").read_text())
        assert record["training"]["seed"] == 3
        assert record["training"]["width"] == record["width"] == 2
        assert record["commit"]
        assert load_file(run / f"{artifact}.safetensors")
    assert set(json.loads((run / "split.json").read_text()).values()) == {"train", "validation", "test"}


def test_an_export_loads_grades_and_states_its_figures(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights"
    assert main(["export", "--data", str(data), "--runs", str(run), "--out", str(out), "--name", "tiny"]) == 0
    manifest = read_manifest(out)
    assert manifest.id.startswith("tiny-")
    part_of = json.loads((run / "split.json").read_text())
    for entry in manifest.members:
        assert entry.figures is not None
        assert entry.figures.subjects == list(part_of.values()).count("test")
        assert entry.figures.macro_f1.low <= entry.figures.macro_f1.value <= entry.figures.macro_f1.high
    assert set(Ensemble.load(out).grade(np.ones(INPUT_SHAPE, np.float32))) == set(Artifact)
    capsys.readouterr()
    command = ["evaluate", "--data", str(data), "--weights", str(out), "--runs", str(run), "--json"]
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == {e.artifact: e.figures.model_dump(mode="json") for e in manifest.members if e.figures}


def test_a_member_starts_as_the_shared_model(data: Path) -> None:
    torch.manual_seed(0)
    shared = Shared("compact-resnet", 2).eval()
    images = torch.rand(2, 1, 20, 32, 32)
    with torch.no_grad():
        severity, plane = shared(images)
        for index, artifact in enumerate(Artifact):
            output = shared.member(artifact, "compact-resnet", 2).eval()(images)
            torch.testing.assert_close(output.severity, severity[:, :, index])
            torch.testing.assert_close(output.plane, plane)


def test_the_same_seed_gives_the_same_member(data: Path, tmp_path: Path) -> None:
    command = ["fit", "--data", str(data), "--artifact", "Motion", *TINY, "--seed", "5", "--batching", "standard"]
    for name in ("a", "b"):
        assert main([*command, "--out", str(tmp_path / name)]) == 0
    first, second = (load_file(tmp_path / name / "Motion.safetensors") for name in ("a", "b"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not (tmp_path / "a" / "Noise.safetensors").exists()


def test_a_later_run_goes_on_from_an_earlier_ones_split_and_encoder(run: Path, data: Path, tmp_path: Path) -> None:
    command = ["fit", "--data", str(data), "--artifact", "Zipper", "--width", "2", "--epochs", "0", "--seed", "9"]
    assert main([*command, "--out", str(tmp_path), "--start", str(run)]) == 0
    assert (tmp_path / "split.json").read_text() == (run / "split.json").read_text()
    member, shared = load_file(tmp_path / "Zipper.safetensors"), load_file(run / "shared.safetensors")
    assert all(torch.equal(tensor, member[key]) for key, tensor in shared.items() if key.startswith("encoder."))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batching", "random"], "batching"),
        (["--encoder", "unknown-net"], "unknown-net"),
        (["--config", "absent.toml"], "absent.toml cannot be read"),
        (["--start", "absent"], "name a run's folder"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(
    data: Path, tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--data", str(data), "--out", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_missing_data_and_missing_members_are_named(run: Path, data: Path, tmp_path: Path) -> None:
    assert main(["fit", "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert main(["export", "--data", str(data), "--runs", str(tmp_path), "--out", str(tmp_path / "w")]) == 2
    assert main(["fit"]) == 2
