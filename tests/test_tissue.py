"""What is drawn of tissues and shading is measured rightly, goes where its scan goes, and is learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from lisa_folder import SHAPES, write_lisa_folder
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.nn import functional as F

from qcnode.artifacts import Artifact, Plane
from qcnode.ensemble.model import Member
from qcnode.ensemble.tissue import MAPS, PLACE, TissueUNet, figures_of
from qcnode.errors import ConfigError
from train.__main__ import main
from train.config import FitConfig
from train.dataset import Scan, cached_input, inputs, read_scans
from train.feed import fed
from train.fields import watched
from train.simulate import TRUTH_STEPS
from train.truth import TRUTH_SHAPE, Truth, cached_truth, cached_truths, truth_loss, truth_of, widened
from train.variation import Variation

CONTRAST = frozenset({Artifact.CONTRAST})


def write_truth(scan: Scan) -> NDArray[np.float32]:
    """A brain of grey around white matter in the head, shaded along x; what is written, as (x, y, z, map)."""
    image = nib.load(scan.path)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    brain, white = radius < 0.7, radius < 0.5
    maps = np.stack([brain & ~white, white, 0.4 * x], -1).astype(np.float32)
    nib.save(nib.Nifti1Image(np.rint(TRUTH_STEPS * maps).astype(np.int16), image.affine), scan.truth_path)
    nib.save(nib.Nifti1Image(brain.astype(np.int16), image.affine), scan.mask_path)
    return maps


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lisa")
    write_lisa_folder(folder, subjects=6)
    for scan in read_scans(folder)[::2]:
        write_truth(scan)
    return folder


@pytest.fixture
def encoder() -> TissueUNet:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return TissueUNet(4).eval()


def test_slices_of_padding_change_nothing(encoder: TissueUNet) -> None:
    scans = torch.rand(2, 1, 9, 32, 48)
    with torch.no_grad():
        features, maps = encoder.drawn(scans)
        padded, there = encoder.drawn(F.pad(scans, (0, 0, 0, 0, 3, 4)))
    assert features.shape == (2, TissueUNet.MIXED)
    assert maps.shape == (2, MAPS, 9, 16, 24)
    torch.testing.assert_close(features, padded, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(maps, there[:, :, 3:-4], atol=1e-5, rtol=1e-4)
    assert there[:, :3, :3].sigmoid().max() < 1e-6, "padding is air"


def test_a_scan_is_drawn_alone_as_it_is_among_others(encoder: TissueUNet) -> None:
    scans = torch.rand(3, 1, 8, 32, 32)
    scans[1, :, :3] = 0  # of fewer slices
    with torch.no_grad():
        together = encoder(scans)
        alone = torch.cat([encoder(one[None]) for one in scans])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)


def test_a_slice_hears_of_its_neighbours_and_training_looks_at_every_second(encoder: TissueUNet) -> None:
    scans = torch.rand(1, 1, 12, 32, 32)
    with watched(encoder) as said, torch.no_grad():
        encoder.train()(scans)
        assert encoder.eval()(torch.zeros(1, 1, 12, 32, 32)).isfinite().all(), "no slice at all is not refused here"
    assert said[0].shape == (6, 16, 16, MAPS)
    assert said[1].sum() == 6
    assert said[1][0, 0] != said[1][0, 1]


def drawn_as(truth: NDArray[np.float32]) -> torch.Tensor:
    """Maps as an encoder that is sure would draw this truth."""
    maps = torch.from_numpy(truth)[None].clone()
    maps[:, :3] = torch.logit(maps[:, :3].clamp(1e-6, 1 - 1e-6))
    return maps


@pytest.mark.parametrize(("grey", "white"), [(1.2, 0.9), (0.8, 1.1), (1.0, 1.0)])
def test_figures_are_right_where_the_drawing_is(data: Path, tmp_path: Path, grey: float, white: float) -> None:
    truth = cached_truth(read_scans(data)[0], tmp_path)
    assert truth is not None
    maps = widened(truth)
    brain, of_grey, of_white, shading = maps
    signal = (grey * of_grey + white * of_white + 2.0 * (brain - of_grey - of_white)) * np.exp(shading)
    found = figures_of(drawn_as(maps), torch.from_numpy(signal.astype(np.float32))[None])[0]
    seen = brain * (grey * of_grey + white * of_white)
    mean = float(seen.sum() / brain.sum())
    assert found[0].item() == pytest.approx(3 * (grey - white) / mean, abs=0.02)
    assert found[1].item() == pytest.approx(abs(found[0].item()))
    most = float(np.ptp(shading[brain > 0.5]))
    assert 0.5 * most < found[7].item() < most, "the shading's range, softly"
    brighter = figures_of(drawn_as(maps), 1.7 * torch.from_numpy(signal.astype(np.float32))[None])[0]
    torch.testing.assert_close(found, brighter, atol=1e-4, rtol=1e-4)


def test_a_truth_is_what_was_written_on_the_scans_places(data: Path, tmp_path: Path) -> None:
    for scan in read_scans(data)[:6:2]:  # one of each plane
        truth = cached_truth(scan, tmp_path)
        assert truth is not None
        assert truth.shape == TRUTH_SHAPE
        brain, grey, white, shading = widened(truth)
        written = np.moveaxis(np.asanyarray(nib.load(scan.truth_path).dataobj), -1, 0) / TRUTH_STEPS
        assert grey.sum() * PLACE**2 == pytest.approx(written[0].sum(), rel=0.02)
        assert white.sum() * PLACE**2 == pytest.approx(written[1].sum(), rel=0.02)
        np.testing.assert_allclose(brain, grey + white, atol=0.02)
        # The patient's left is at the end of the columns, or at the last slice; x grows to the right here.
        axis = 0 if scan.plane is Plane.SAGITTAL else 2
        where = np.indices(brain.shape)[axis]
        assert np.corrcoef(where[brain > 0.9], shading[brain > 0.9])[0, 1] < -0.99
    assert cached_truth(read_scans(data)[1], tmp_path) is None
    assert cached_truths(read_scans(data), tmp_path, FitConfig()) == []


def test_a_truth_of_another_grid_is_refused(tmp_path: Path) -> None:
    write_lisa_folder(tmp_path, subjects=1)
    scan = read_scans(tmp_path)[0]
    write_truth(scan)
    for wrong, words in (
        (np.zeros((*SHAPES[Plane.AXIAL], 2), np.int16), "does not hold 3 maps"),
        (np.zeros((9, 9, 9, 3), np.int16), "its voxels are not those"),
    ):
        nib.save(nib.Nifti1Image(wrong, nib.load(scan.path).affine), scan.truth_path)
        with pytest.raises(ConfigError, match=words):
            cached_truth(scan, tmp_path / "cache")


@pytest.mark.parametrize(
    "variation",
    [
        Variation(mirrored=(0, 2), shift_voxels=(1, -6, 4)),
        Variation(mirrored=(1,), transposed=True, scale=1.2, shift_voxels=(-2, 8, 0)),
        Variation(turn=(0.2, 1.05)),
    ],
)
def test_places_move_as_their_voxels_do(variation: Variation) -> None:
    generator = np.random.default_rng(0)
    image = generator.random((6, 48, 48), np.float32)
    if variation.turn:  # which interpolates: smooth images alone are turned alike
        image = np.asarray(F.interpolate(torch.from_numpy(image[None, :, ::12, ::12]), (48, 48), mode="bicubic")[0])

    def places(of: NDArray[np.float32]) -> NDArray[np.float32]:
        return of.reshape(len(of), 24, 2, 24, 2).mean((2, 4))

    moved = variation.of_places(places(image)[None], PLACE)[0]
    expected = places(replace(variation, scale=1.0).of(image))
    inside = (slice(None), slice(6, 18), slice(6, 18)) if variation.turn else ...
    np.testing.assert_allclose(moved[inside], expected[inside], atol=0.03 if variation.turn else 1e-6)


def test_a_truth_goes_where_its_scan_goes_and_scans_without_are_known(data: Path, tmp_path: Path) -> None:
    scans = read_scans(data)[:4]
    config = FitConfig(encoder="tissue-unet", truth_weight=1, intensity_jitter=0, width=2)
    truths = cached_truths(scans, tmp_path, config)
    everything = inputs(scans, [cached_input(s, tmp_path) for s in scans], truths=truths)
    for batch in fed(everything, [np.arange(4)] * 3, CONTRAST, config, np.random.default_rng(4), "test"):
        assert batch.truth is not None
        assert batch.truth.known.tolist() == [True, False, True, False]
        assert not batch.truth.maps[[1, 3]].any()
        head = F.avg_pool2d(batch.images[[0, 2], 0], PLACE) > 0.3
        brain = batch.truth.maps[[0, 2], 0] > 0.5
        assert (head & brain).sum() > 0.98 * brain.sum(), "the brain is in the head"
        # and in its middle
        for its_head, its_brain in zip(head, brain, strict=True):
            middles = [each.nonzero().float().mean(0) for each in (its_head, its_brain)]
            assert (middles[0] - middles[1]).abs().max() < 1.5


def test_the_loss_of_a_hand_worked_example() -> None:
    maps = np.zeros(TRUTH_SHAPE, np.float32)
    maps[0], maps[1] = 1.0, 1.0
    truth = truth_of([maps, None], torch.device("cpu"))
    drawn = torch.zeros(2, TRUTH_SHAPE[1], dtype=torch.bool)
    drawn[:, :2] = True
    said = torch.zeros(4, *TRUTH_SHAPE[2:], MAPS)
    said[..., 3] = 0.5
    said.requires_grad_()
    loss = truth_loss([said, drawn], truth)
    # cross-entropy: three times log 2; shading: |d| - .05, and air beside the brain counts a tenth
    assert loss.item() == pytest.approx(3 * np.log(2) + 4 * (0.5 - 0.05) / 1.1, rel=1e-4)
    loss.backward()  # type: ignore[no-untyped-call]
    assert said.grad is not None
    assert said.grad[:2].abs().sum() > 0
    assert not said.grad[2:].any(), "a scan without a truth does not contribute"
    assert truth_loss([said, drawn], Truth(truth.maps, torch.tensor([False, False]))).item() == 0


def test_encoders_that_draw_nothing_and_data_without_truths_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValidationError, match="compact-resnet draws no tissues"):
        FitConfig(truth_weight=1)
    write_lisa_folder(tmp_path / "bare", subjects=6)
    (tmp_path / "c.toml").write_text('encoder = "tissue-unet"\ntruth_weight = 1\nwidth = 2\n')
    command = ["fit", "--data", str(tmp_path / "bare"), "--out", str(tmp_path / "run"), "--artifact", "Contrast"]
    assert main([*command, "--config", str(tmp_path / "c.toml")]) == 2
    assert "no training scan has a truth" in capsys.readouterr().err


def test_a_few_steps_draw_better(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    scan = read_scans(data)[0]
    truth = cached_truth(scan, tmp_path)
    assert truth is not None
    image = torch.from_numpy(np.asarray(cached_input(scan, tmp_path), np.float32))[None, None, 14:26]
    maps = truth_of([widened(truth)], torch.device("cpu"))
    member, losses = Member("tissue-unet", 4).train(), []
    optimizer = torch.optim.Adam(member.parameters(), 0.02)
    for _ in range(30):
        with watched(member.encoder) as said:
            member(F.pad(image, (0, 0, 0, 0, 14, 14)))
        loss = truth_loss(said, maps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_a_fitted_member_draws_and_is_what_the_node_loads(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        'encoder = "tissue-unet"\nwidth = 2\nepochs = 1\nblocks = 1\nbf16 = false\n'
        "truth_weight = 3\nmeasure_weight = 1\n"
    )
    command = ["fit", "--data", str(data), "--artifact", "Contrast", "--batching", "standard"]
    assert main([*command, "--config", str(config), "--out", str(tmp_path), "--cache", str(tmp_path / "cache")]) == 0
    assert json.loads((tmp_path / "Contrast.json").read_text())["training"]["truth_weight"] == 3
    Member("tissue-unet", 2).load_state_dict(load_file(tmp_path / "Contrast.safetensors"))  # strictly
