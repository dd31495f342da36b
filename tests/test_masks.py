"""The third task: where masks come from and go, what its loss is, and that nothing of it reaches the node."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from lisa_folder import write_lisa_folder
from safetensors.torch import load_file

from qcnode.artifacts import Artifact
from qcnode.ensemble.model import Member
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import CUBE, INPUT_SHAPES, PREPROCESSING
from train.__main__ import main
from train.config import FitConfig
from train.dataset import Scan, cached_input, cached_mask, cached_masks, inputs, read_scans
from train.sampling.feed import Masks, fed
from train.sampling.masks import Segmenting, mask_loss


def write_masks(folder: Path, scans: list[Scan]) -> None:
    """The head as the mask of each of these scans."""
    for scan in scans:
        image = nib.load(scan.path)
        head = (np.asanyarray(image.dataobj) > 30).astype(np.uint8)
        nib.save(nib.Nifti1Image(head * 7, image.affine), scan.mask_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lisa")
    write_lisa_folder(folder, subjects=6)
    write_masks(folder, read_scans(folder)[::2])
    return folder


@pytest.mark.parametrize("preprocessing", [PREPROCESSING, CUBE])
def test_a_mask_is_cached_voxel_by_voxel_beside_its_scan(data: Path, tmp_path: Path, preprocessing: str) -> None:
    for scan in read_scans(data)[:6:2]:
        image, mask = cached_input(scan, tmp_path, preprocessing), cached_mask(scan, tmp_path, preprocessing)
        assert mask is not None
        assert mask.shape == INPUT_SHAPES[preprocessing]
        bright = image > (0.3 if preprocessing == PREPROCESSING else (image.min() + image.max()) / 4)
        assert (bright == (mask > 127)).mean() > 0.98
        assert set(np.unique(mask)) == {0, 255} or preprocessing == CUBE
    assert cached_mask(read_scans(data)[1], tmp_path, preprocessing) is None
    assert cached_masks(read_scans(data), tmp_path, FitConfig()) == []


def test_a_mask_of_another_grid_is_refused(tmp_path: Path) -> None:
    write_lisa_folder(tmp_path, subjects=1)
    scan = read_scans(tmp_path)[0]
    nib.save(nib.Nifti1Image(np.ones((9, 9, 9), np.uint8), np.eye(4)), scan.mask_path)
    with pytest.raises(ConfigError, match="its voxels are not those of LISA_0001"):
        cached_mask(scan, tmp_path / "cache")


def test_a_mask_goes_where_its_scan_goes_and_scans_without_are_known(data: Path, tmp_path: Path) -> None:
    scans, config = read_scans(data)[:4], FitConfig(mask_weight=1, intensity_jitter=0)
    everything = inputs(scans, [cached_input(s, tmp_path) for s in scans], cached_masks(scans, tmp_path, config))
    for artifact in (Artifact.NOISE, Artifact.MOTION):  # the second is turned, scaled and on another curve as well
        batches = [np.array([0, 1, 2, 3])] * 3
        for batch in fed(everything, batches, {artifact}, config, np.random.default_rng(4), "test"):
            assert batch.masks is not None
            assert batch.masks.known.tolist() == [True, False, True, False]
            assert not batch.masks.shares[[1, 3]].any()
            same = (batch.images[[0, 2]] > 0.3) == (batch.masks.shares[[0, 2]] > 0.5)
            assert same.float().mean() > 0.98
    plain = next(
        iter(fed(everything, [np.array([0])], {Artifact.NOISE}, FitConfig(), np.random.default_rng(4), "test"))
    )
    assert plain.masks is None


def test_the_loss_of_a_hand_worked_example() -> None:
    logits = torch.tensor([[0.0, 0.0], [9.0, 9.0]]).view(2, 1, 1, 1, 2).requires_grad_()
    shares = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 1, 1, 1, 4)
    found = mask_loss(logits, Masks(shares, torch.tensor([True, False])))
    # two voxels at p = 1/2, of which one is brain: ln 2, and 1 - (2 · 1/2 + 1) / (1 + 1 + 1)
    assert found.item() == pytest.approx(np.log(2) + 1 / 3)
    found.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad[1].any(), "a scan without a mask does not contribute"
    assert mask_loss(logits, Masks(shares, torch.tensor([False, False]))).item() == 0


@pytest.mark.parametrize(
    "encoder", ["compact-resnet", "resnet10", "resnet50", "densenet169", "mednext_s", "resnet10+dft"]
)
def test_every_encoder_with_maps_finds_the_brain_and_grades_as_without(encoder: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    member = Member(encoder, 2)
    segmenting = Segmenting(member).eval()
    images = torch.rand(2, 1, 32, 32, 32)
    output, brain = segmenting(images)
    torch.testing.assert_close(output.severity, member(images).severity)
    assert brain.shape[:2] == (2, 1)
    mask_loss(brain, Masks(torch.ones(2, 1, 32, 32, 32), torch.tensor([True, True]))).backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None and p.grad.any() for p in member.encoder.parameters()), "the encoder learns from it"


def test_encoders_without_maps_and_data_without_masks_are_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="mirror-resnet has no maps"):
        FitConfig(encoder="mirror-resnet", mask_weight=1)
    write_lisa_folder(tmp_path / "bare", subjects=6)
    (tmp_path / "c.toml").write_text("mask_weight = 1\nwidth = 2\n")
    command = ["fit", "--data", str(tmp_path / "bare"), "--out", str(tmp_path / "run")]
    assert main([*command, "--config", str(tmp_path / "c.toml")]) == 2
    assert "no training scan has a mask" in capsys.readouterr().err


def test_a_few_steps_find_a_ball() -> None:
    torch.manual_seed(0)
    axis = torch.linspace(-1, 1, 32)
    ball = ((axis[:, None, None] - 0.2) ** 2 + axis[:, None] ** 2 + axis**2 < 0.4).float()[None, None]
    images, masks = ball.repeat(4, 1, 1, 1, 1) + 0.1 * torch.rand(4, 1, 32, 32, 32), ball.repeat(4, 1, 1, 1, 1)
    segmenting, losses = Segmenting(Member("resnet10", 4)).train(), []
    optimizer = torch.optim.Adam(segmenting.parameters(), 0.01)
    for _ in range(25):
        loss = mask_loss(segmenting(images)[1], Masks(masks, torch.ones(4, dtype=torch.bool)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_a_fitted_member_has_no_head_of_masks(data: Path, tmp_path: Path) -> None:
    command = ["fit", "--data", str(data), "--artifact", "Motion", "--epochs", "1", "--batching", "standard"]
    for weight in (0, 5):
        config, out = tmp_path / f"{weight}.toml", tmp_path / f"run-{weight}"
        config.write_text(f"mask_weight = {weight}\nwidth = 2\nlearning_rate = 0.01\n")
        assert main([*command, "--config", str(config), "--out", str(out)]) == 0
        assert json.loads((out / "Motion.json").read_text())["training"]["mask_weight"] == weight
        Member("compact-resnet", 2).load_state_dict(
            load_file(out / "Motion.safetensors")
        )  # strictly: what the node loads
