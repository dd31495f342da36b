"""The record beside a simulated scan makes it again from the command line, voxel for voxel; workers change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_brains import write_brains

from train.__main__ import main
from train.simulate import simulate_scan
from train.simulation.brains import phantoms, sources
from train.simulation.prevalence import Prevalence
from train.simulation.replay import replayed


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_brains(tmp_path_factory.mktemp("brains"))


@pytest.fixture(scope="module")
def corpus(brains: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus")
    assert main(["simulate", str(brains), str(out), "--count", "2", "--seed", "3", "--workers", "1"]) == 0
    return out


def _record(corpus: Path) -> Path:
    return min(corpus.glob("*.json"))


def test_as_many_workers_as_you_like_write_the_same_bytes(brains: Path, corpus: Path, tmp_path: Path) -> None:
    assert main(["simulate", str(brains), str(tmp_path), "--count", "2", "--seed", "3", "--workers", "2"]) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in corpus.iterdir()
    }


def test_a_record_makes_its_scan_again(brains: Path, corpus: Path, tmp_path: Path) -> None:
    record = _record(corpus)
    assert main(["simulate", str(brains), str(tmp_path / "again"), "--replay", str(record)]) == 0
    again = sorted((tmp_path / "again").iterdir())
    assert [path.name.removeprefix(record.stem) for path in again] == [
        ".json",
        ".nii.gz",
        "_mask.nii.gz",
        "_truth.nii.gz",
    ]
    for path in again:
        assert path.read_bytes() == (corpus / path.name).read_bytes()


@pytest.mark.parametrize(("varied", "prevalence"), [(True, Prevalence.BALANCED), (False, Prevalence.MEASURED)])
def test_a_record_says_all_that_a_scan_needs(brains: Path, varied: bool, prevalence: Prevalence) -> None:
    torch.set_num_threads(1)
    found = sources(brains) + phantoms(24)
    for run in range(3):
        simulated, record = simulate_scan(found, 5, run, varied=varied, prevalence=prevalence)
        assert (record["varied"], record["prevalence"]) == (varied, prevalence)
        again = replayed(found[::-1], json.loads(json.dumps(record)))
        assert again.volume.array.tobytes() == simulated.volume.array.tobytes()
        assert again.truth.tobytes() == simulated.truth.tobytes()
        assert again.measured == simulated.measured


def test_what_cannot_be_replayed_is_said_in_a_sentence(
    brains: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(_record(corpus).read_text())
    older = {key: value for key, value in record.items() if key not in {"pose", "grid", "head_generator", "contrast"}}
    for content, said in (
        (json.dumps(older), "lacks head_generator, pose, grid, contrast, as records of older versions do"),
        (json.dumps(record | {"source": "another.nii.gz"}), "another.nii.gz is not among the brains"),
        (json.dumps(record | {"measured": {}}), "which the record says otherwise"),
        ("[]", "lacks subject"),
        ("no JSON", "cannot be read as JSON"),
    ):
        (tmp_path / "record.json").write_text(content)
        assert main(["simulate", str(brains), str(tmp_path / "out"), "--replay", str(tmp_path / "record.json")]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert main(["simulate", str(brains), str(tmp_path), "--replay", str(tmp_path / "none.json")]) == 2
    assert main(["simulate", str(brains), str(tmp_path), "--replay", str(_record(corpus)), "--count", "2"]) == 2
