"""Training in several processes: together they step as one process with the whole batch does."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lisa_folder import write_lisa_folder
from safetensors.torch import load_file

from train import ranks
from train.__main__ import main

TWO = """
encoder = "lou-cnn"  # without batch norms, which processors do not share
width = 2
preprocessing = "blocks-1"
variation = "none"
dropout = 0
bf16 = false
epochs = 2
learning_rate = 1e-2

[members.Noise]
batching = "standard"
blocks = 3  # 18 scans in batches of 12 and 6
loss = "weighted"
reweight = false
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lisa")
    write_lisa_folder(folder, subjects=8)
    return folder


def _by_two(command: list[str]) -> subprocess.CompletedProcess[str]:
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    return subprocess.run(
        [*started, "-m", "train", *command], env=settings, capture_output=True, text=True, timeout=240, check=False
    )


def test_two_processes_end_as_one_with_the_whole_batch_does(data: Path, tmp_path: Path) -> None:
    """Motion's member is reweighted, in rotating batches; Noise's has a weighted loss, in standard ones."""
    config = tmp_path / "two.toml"
    config.write_text(TWO)
    command = ["fit", "--data", str(data), "--artifact", "Motion", "--artifact", "Noise", "--config", str(config)]
    assert main([*command, "--out", str(tmp_path / "one")]) == 0
    done = _by_two([*command, "--out", str(tmp_path / "two")])
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("| Motion |") == 1, "the first alone speaks"
    for artifact in ("Motion", "Noise"):
        one, two = (load_file(tmp_path / run / f"{artifact}.safetensors") for run in ("one", "two"))
        for key, weight in one.items():
            torch.testing.assert_close(two[key], weight, rtol=2e-3, atol=1e-5)  # a step of half precision is 1e-3
        curves = [_curve(tmp_path / run / f"{artifact}.epochs.csv") for run in ("one", "two")]
        np.testing.assert_allclose(curves[0], curves[1], rtol=1e-4)
        assert abs(curves[0][0] - curves[0][1]) > 1e-3, "a step changes the loss"


def _curve(path: Path) -> list[float]:
    with path.open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)][1:]


def test_what_one_process_does_alone_is_said(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["evaluate", "--data", str(data)]) == 2
    assert "Only fit trains in several processes; start evaluate by itself." in capsys.readouterr().err


def test_alone_nothing_is_shared_and_a_batch_of_one_scan_is_left_out() -> None:
    whole, single = np.arange(5), np.arange(1)
    shares = ranks.shares([whole, single])
    assert [share.tolist() for share in shares] == [[0, 1, 2, 3, 4]]
    losses = torch.tensor([1.0, 3.0])
    assert float(ranks.joint_mean(losses)) == 2
    assert ranks.merged({1: "one"}) == {1: "one"}
    generator = np.random.default_rng(0)
    assert ranks.own_generator(generator, [1]) is generator
