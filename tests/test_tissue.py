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
from qcnode.ensemble.tissue import APART, PLACE, SHARES, TissueUNet, every_third, figures_of
from qcnode.errors import ConfigError
from train import loop
from train.__main__ import main
from train.config import FitConfig
from train.dataset import Scan, cached_input, inputs, read_scans
from train.sampling.feed import fed
from train.sampling.fields import watched
from train.sampling.truth import (
    TRUTH_SHAPE,
    Truth,
    cached_truth,
    cached_truths,
    contrast_maps,
    truth_loss,
    truth_of,
    widened,
)
from train.sampling.variation import Variation
from train.simulate import TRUTH_STEPS

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
        features = encoder(scans)
        padded = encoder(F.pad(scans, (0, 0, 0, 0, 4, 2)))
    assert features.shape == (2, TissueUNet.MIXED)
    torch.testing.assert_close(features, padded, atol=1e-3, rtol=1e-3)


def test_a_scan_is_drawn_alone_as_it_is_among_others(encoder: TissueUNet) -> None:
    scans = torch.rand(3, 1, 8, 32, 32)
    scans[1, :, :3] = 0  # of fewer slices
    with torch.no_grad():
        together = encoder(scans)
        alone = torch.cat([encoder(one[None]) for one in scans])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-3)


def test_training_is_given_every_third_slice_and_else_all_are_seen(encoder: TissueUNet) -> None:
    scans = torch.rand(1, 1, 12, 32, 32)
    with watched(encoder) as said, torch.no_grad():
        encoder.is_given_one = True
        encoder.train()(scans[:, :, ::APART])
        encoder.is_given_one = False
        encoder.train()(scans)
    shares, regions, there = said[:3]
    assert [its.shape for its in said[3:]] == [its.shape for its in said[:3]]
    assert shares.shape == (4, SHARES, 16, 16)
    assert regions.shape == (1, encoder.REGIONS, 4, 4, 4)
    assert there.all()
    with watched(encoder) as said, torch.no_grad():
        whole = encoder.eval()(scans)
        assert encoder(torch.zeros(1, 1, 12, 32, 32)).isfinite().all(), "no slice at all is not refused here"
        stacks = [encoder._looked(scans[:, 0, first::APART], torch.ones(1, 4, dtype=bool)) for first in range(APART)]
    assert len(said) == 3 * 9
    torch.testing.assert_close(whole, torch.stack(stacks).mean(0))


def test_every_third_slice_is_as_many_wherever_it_begins() -> None:
    maps = np.arange(1, 11.0)[:, None, None] * np.ones((10, 2, 2))
    assert [every_third(maps, first)[:, 0, 0].tolist() for first in range(3)] == [
        [1, 4, 7, 10],
        [2, 5, 8, 0],
        [3, 6, 9, 0],
    ]
    assert every_third(maps[None], 1).shape == (1, 4, 2, 2)


def test_heads_do_not_bend_what_is_drawn(encoder: TissueUNet) -> None:
    encoder.train()(torch.rand(2, 1, 9, 32, 32)).square().sum().backward()
    learned = {name.split(".")[0] for name, weight in encoder.named_parameters() if weight.grad is not None}
    assert learned == {"deep", "mix"}


def test_figures_are_right_where_the_drawing_is() -> None:
    brain = torch.zeros(1, 4, 6, 6)
    brain[:, 1:3, 1:5, 1:5] = 1
    shading = torch.linspace(-0.5, 0.5, 6).expand(1, 4, 6, 6)
    contrast = torch.full((1, 4, 6, 6), 9.0)  # in air nobody asks
    contrast[0, 1], contrast[0, 2] = 2.0, 1.0
    share = brain / brain.sum()
    found = figures_of(torch.stack([shading, contrast], 1), brain, share)[0]
    assert 0.4 < found[2].item() < 0.6, "the range of the shading in the brain, softly"
    assert found[4].item() == pytest.approx(1.5)
    assert found[5].item() == pytest.approx(0.25), "half of the brain is .5 above the mean"
    assert found[6].item() == pytest.approx(0.5, abs=1e-3)


def test_a_truth_is_what_was_written_on_the_scans_places(data: Path, tmp_path: Path) -> None:
    for scan in read_scans(data)[:6:2]:  # one of each plane
        truth = cached_truth(scan, tmp_path)
        assert truth is not None
        assert truth.maps.shape == TRUTH_SHAPE
        assert (truth.plain is not None) is not any(scan.labels)
        brain, grey, white, shading = widened(truth.maps)
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
    generator = np.random.default_rng(4)
    for batch in fed(everything, [np.arange(4)] * 3, frozenset({Artifact.CONTRAST}), config, generator, "test"):
        assert batch.truth is not None
        assert batch.truth.known.tolist() == [True, False, True, False]
        assert batch.images.shape[2] == 14, "every third slice"
        assert not batch.truth.shares[[1, 3]].any()
        head = F.avg_pool2d(batch.images[[0, 2], 0], PLACE) > 0.3
        brain = batch.truth.shares[[0, 2], 0] > 0.5
        assert (head & brain).sum() > 0.98 * brain.sum(), "the brain is in the head"
        # and in its middle
        for its_head, its_brain in zip(head, brain, strict=True):
            middles = [each.nonzero().float().mean(0) for each in (its_head, its_brain)]
            assert (middles[0] - middles[1]).abs().max() < 1.5


def test_the_loss_of_a_hand_worked_example() -> None:
    places = np.zeros((SHARES + 1, 2, 8, 8), np.float32)
    places[:2] = 1.0
    shares = torch.zeros(4, SHARES, 8, 8)
    regions = torch.zeros(2, TissueUNet.REGIONS, 2, 2, 2)
    regions[:, 0], regions[:, 1] = 0.5, 3.0
    for each in (shares, regions):
        each.requires_grad_()
    said, device = [shares, regions, torch.ones(2, 2, dtype=torch.bool)], torch.device("cpu")
    truth = truth_of([contrast_maps(places, 0.1), None], device)
    loss = truth_loss(said, truth)
    # cross-entropy: three times log 2; shading: |d| - .05; contrast: |3 - 1| - .15
    assert loss.item() == pytest.approx(3 * np.log(2) + 4 * (0.5 - 0.05) + 0.5 * (2 - 0.15), rel=1e-4)
    loss.backward()  # type: ignore[no-untyped-call]
    assert shares.grad is not None
    assert regions.grad is not None
    assert shares.grad[:2].abs().sum() > 0
    assert regions.grad[0].abs().sum() > 0
    assert not shares.grad[2:].any(), "a scan without a truth does not contribute"
    assert not regions.grad[1].any()
    untold = truth_of([contrast_maps(places, None), None], device)
    assert truth_loss(said, untold).item() == pytest.approx(loss.item() - 0.5 * 1.85, 1e-4)
    nobody = Truth(truth.shares, truth.regions, torch.tensor([False, False]))
    assert truth_loss(said, nobody).item() == 0
    assert truth_loss(said, truth_of([None, None], device)).item() == 0


def test_encoders_that_draw_nothing_and_data_without_truths_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValidationError, match="compact-resnet draws no truth"):
        FitConfig(truth_weight=1)
    write_lisa_folder(tmp_path / "bare", subjects=6)
    (tmp_path / "c.toml").write_text('encoder = "tissue-unet"\ntruth_weight = 1\nwidth = 2\n')
    command = ["fit", "--data", str(tmp_path / "bare"), "--out", str(tmp_path / "run"), "--artifact", "Contrast"]
    assert main([*command, "--config", str(tmp_path / "c.toml")]) == 2
    assert "no training scan has a truth" in capsys.readouterr().err
    (tmp_path / "c.toml").write_text('encoder = "tissue-unet"\nwidth = 2\n')
    assert main([*command, "--config", str(tmp_path / "c.toml")]) == 2
    assert "learns to draw from the truth alone" in capsys.readouterr().err
    (tmp_path / "c.toml").write_text('encoder = "tissue-unet"\nwidth = 2\n')
    weights = Path(__file__).parents[1] / "weights"
    assert main([*command, "--config", str(tmp_path / "c.toml"), "--init", str(weights)]) == 2
    assert "whose Contrast is alike" in capsys.readouterr().err, "of another width it would start from chance"


def test_a_few_steps_draw_better(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    scan = read_scans(data)[0]
    truth = cached_truth(scan, tmp_path)
    assert truth is not None
    image = torch.from_numpy(every_third(np.asarray(cached_input(scan, tmp_path), np.float32), 0))[None, None]
    maps = truth_of([contrast_maps(every_third(widened(truth.maps), 0), None)], torch.device("cpu"))
    member, losses = Member("tissue-unet", 4).train(), []
    assert isinstance(member.encoder, TissueUNet)
    member.encoder.is_given_one = True
    optimizer = torch.optim.Adam(member.parameters(), 0.02)
    for _ in range(30):
        with watched(member.encoder) as said:
            member(image)
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


def test_a_site_without_truths_goes_on_from_the_shipped_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "log_loss", lambda *_: 0.5)  # a tie: the last epoch is kept
    write_lisa_folder(tmp_path / "site", subjects=6)
    (tmp_path / "c.toml").write_text('encoder = "tissue-unet"\nwidth = 16\nepochs = 1\nblocks = 1\nreweight = false\n')
    weights = Path(__file__).parents[1] / "weights"
    command = ["fit", "--data", str(tmp_path / "site"), "--artifact", "Contrast", "--batching", "standard"]
    command += ["--config", str(tmp_path / "c.toml"), "--init", str(weights), "--out", str(tmp_path)]
    assert main(command) == 0
    trained, shipped = load_file(tmp_path / "Contrast.safetensors"), load_file(weights / "contrast.safetensors")
    assert trained.keys() == shipped.keys()
    changed = {
        name.split(".")[1]
        for name, its in trained.items()
        if name.startswith("encoder.") and not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        if not torch.equal(its.half(), shipped[name])
    }
    assert changed == {"deep", "mix"}, "what draws stays, the rest learns"
