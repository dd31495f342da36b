"""Contrastive pre-training: its loss by hand, what its views keep, and that `fit` begins where it ended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lisa_folder import write_lisa_folder
from safetensors.torch import load_file

from qcnode.imaging.preprocess import CUBE
from train import pretrain
from train.__main__ import main
from train.config import FitConfig
from train.pretrain import PRETRAINED, Projected, nt_xent, view

TINY = ["--encoder", "resnet10", "--width", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rated subjects, and a seventh without labels."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lisa")
    write_lisa_folder(folder, subjects=6)
    for plane, run in (("axi", 0), ("cor", 1)):
        shutil.copy(folder / f"LISA_0001_run-00{run}_LF_{plane}.nii.gz", folder / f"LISA_0099_LF_{plane}.nii.gz")
    return folder


def test_nt_xent_of_hand_worked_examples() -> None:
    axes = torch.eye(2)
    # every view: its other at 1, two strangers at 0
    assert nt_xent(axes, 5 * axes, 1.0).item() == pytest.approx(np.log((np.e + 2) / np.e))
    # a = (1, 0), a' = b = b' = (0, 1), temperature 1/2: a is at 0 from all, a' from a alone; b and b' are at 2
    first, second = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 3.0], [0.0, 1.0]])
    rest = np.log(1 + 2 * np.exp(2))
    assert nt_xent(first, second, 0.5).item() == pytest.approx((np.log(3) + rest + 2 * (rest - 2)) / 4)


def test_nt_xent_is_the_same_whichever_view_comes_first_and_least_where_views_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, 8, generator=generator)
    torch.testing.assert_close(nt_xent(first, second, 0.9), nt_xent(second, first, 0.9))
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(nt_xent(first, second, 0.9), nt_xent(first[order], second[order], 0.9))
    assert nt_xent(first, first, 0.9) < nt_xent(first, second, 0.9)


@pytest.mark.parametrize("preprocessing", ["grid-1", CUBE])
def test_a_view_moves_voxels_and_invents_none(preprocessing: str) -> None:
    generator = np.random.default_rng(0)
    image = np.pad(generator.random((4, 6, 6), np.float32) + 1, ((2, 2), (2, 2), (2, 2)))
    if preprocessing == CUBE:
        image -= 1
    config = FitConfig(encoder="resnet10", preprocessing=preprocessing, variation="none", intensity_jitter=0)
    first, second = view(image, config, generator), view(image, config, generator)
    assert first.tobytes() != second.tobytes()
    for one in (first, second):
        np.testing.assert_allclose(np.sort(one, axis=None), np.sort(image, axis=None), atol=1e-6)


def test_the_halves_of_a_fusion_learn_on_their_own() -> None:
    model = Projected("resnet10+dft", 1).eval()
    spatial, spectral = model(torch.rand(4, 1, 16, 32, 32))
    assert spatial.shape == spectral.shape == (4, 128)
    nt_xent(*spectral.chunk(2), 0.9).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None or not p.grad.any() for p in model.encoder.spatial.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.encoder.spectral.parameters())


def test_a_fit_begins_from_the_encoder_and_tests_nobody_it_saw(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = tmp_path / "start"
    assert main(["pretrain", "--data", str(data), "--out", str(start), "--epochs", "1", *TINY]) == 0
    part_of = json.loads((start / "split.json").read_text())
    assert part_of["LISA_0099"] == "train"
    assert set(part_of.values()) == {"train", "validation", "test"}
    command = ["fit", "--data", str(data), "--artifact", "Motion", "--start", str(start)]
    assert main([*command, "--out", str(tmp_path / "run"), "--epochs", "0", *TINY]) == 0
    encoder, member = load_file(start / PRETRAINED), load_file(tmp_path / "run/Motion.safetensors")
    assert encoder
    its_own = {name: member[f"encoder.{name}"] for name in encoder}
    assert all(torch.equal(tensor.to(its_own[name].dtype), its_own[name]) for name, tensor in encoder.items())
    its = json.loads((tmp_path / "run/split.json").read_text())
    assert its == {subject: part for subject, part in part_of.items() if subject != "LISA_0099"}
    assert "starts from chance" not in caplog.text
    assert main([*command, "--out", str(tmp_path / "other"), "--epochs", "0", *TINY[:2], "--width", "2"]) == 0
    assert "Motion starts from chance" in caplog.text


class Killed(Exception):  # noqa: N818 - what happened
    """The process is gone."""


def test_a_pre_training_that_is_killed_goes_on_and_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    images = [generator.random((8, 16, 16)).astype(np.float16) for _ in range(6)]
    config = FitConfig(encoder="resnet10", width=1, pretrain_epochs=6, pretrain_batch=3, bf16=False)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    names = [str(number) for number in range(6)]
    pretrain.pretrain(config, names, images, whole)
    compare, compared = pretrain.nt_xent, []

    def compared_and_killed(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
        compared.append(1)
        if len(compared) == 6:
            raise Killed
        return compare(first, second, temperature)

    monkeypatch.setattr(pretrain, "nt_xent", compared_and_killed)
    with pytest.raises(Killed):
        pretrain.pretrain(config, names, images, killed)
    pretrain.pretrain(config, names, images, killed)
    assert len(compared) == 6 + 8, "two epochs were done, and half of a third in vain"
    one, other = (load_file(folder / PRETRAINED) for folder in (whole, killed))
    assert all(torch.equal(one[key], other[key]) for key in one)
