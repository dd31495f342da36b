"""A look that was made before is the look that the encoder makes itself, and varies as the scan would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lisa_folder import write_lisa_folder
from numpy.typing import NDArray

from qcnode.artifacts import Artifact, Plane
from qcnode.ensemble.blocks import LookingEncoder, blocks_of
from qcnode.ensemble.networks import encoder as built_encoder
from qcnode.ensemble.profiles import PROFILES
from train.__main__ import main
from train.config import FitConfig
from train.dataset import Inputs, Scan, cached_input, inputs, read_scans
from train.sampling.feed import fed
from train.sampling.looks import looked_at, looks, varied_look

ENCODERS = ["mirror-resnet", "plane-profiles", "head-resnet", "atlas-resnet", "field-unet"]


def scans(count: int) -> Inputs:
    images = [np.random.default_rng(n).random((40, 144, 144)).astype(np.float16) for n in range(count)]
    found = [Scan(Path(f"LISA_{n:04d}_LF_axi.nii.gz"), f"LISA_{n:04d}", Plane.AXIAL, (0,) * 7) for n in range(count)]
    return inputs(found, images, measured=[{"band_depth": 0.15 * n} for n in range(count)])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_encoder_says_of_looks_what_it_says_of_the_scans(encoder: str, tmp_path: Path) -> None:
    assert looks(encoder)
    assert not looks("compact-resnet")
    torch.set_num_threads(1)
    data = scans(3)
    blocks = [blocks_of(torch.from_numpy(i.astype(np.float32))[None, None])[0].numpy() for i in data.images]
    of_whole = looked_at(encoder, data, tmp_path)
    of_blocks = looked_at(encoder, Inputs(data.scans[:2], blocks[:2], data.labels[:2], data.planes[:2]), tmp_path)
    assert np.allclose(of_whole.images[:2], of_blocks.images, atol=2e-2)
    torch.manual_seed(0)
    network = built_encoder(encoder, 4)[0].eval()
    with torch.no_grad():
        said = network(torch.from_numpy(np.stack(data.images).astype(np.float32))[:, None])
        said_of_looks = network(torch.from_numpy(np.stack(of_whole.images).astype(np.float32)))
        said_of_blocks = network(torch.from_numpy(np.stack(blocks))[:, None])
    assert torch.allclose(said, said_of_looks, atol=2e-2)
    assert torch.allclose(said, said_of_blocks, atol=1e-3)


def test_processes_make_the_same_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = scans(3)
    alone = looked_at("plane-profiles", data, tmp_path)
    monkeypatch.setattr("train.sampling.looks._AT_A_TIME", 2)
    together = looked_at("plane-profiles", data, tmp_path / "again")
    assert np.array_equal(np.stack(alone.images), np.stack(together.images))


def test_looks_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = scans(2)
    first = looked_at("plane-profiles", data, tmp_path)
    monkeypatch.setattr("train.sampling.looks._looks_of", None)  # nothing can be made now
    again = looked_at("plane-profiles", data, tmp_path)
    assert np.array_equal(first.images[1], again.images[1])
    assert again.measured == data.measured


def test_mirrored_profiles_are_the_profiles_of_the_mirrored_scan() -> None:
    network = built_encoder("plane-profiles", 1)[0]
    assert isinstance(network, LookingEncoder)
    blocks = torch.rand(40, 36, 36, generator=torch.Generator().manual_seed(1))
    blocks[:, :12] *= 0.2  # air
    look = network.look(blocks).numpy()
    turned = {network.look(blocks.flip(axes)).numpy().tobytes() for axes in ((), (0,), (1,), (0, 1), (2,), (0, 2))}
    turned |= {network.look(blocks.flip(axes)).numpy().tobytes() for axes in ((1, 2), (0, 1, 2))}
    turned |= {
        network.look(blocks.transpose(1, 2).flip(axes)).numpy().tobytes()
        for axes in ((), (0,), (1,), (0, 1), (2,), (0, 2), (1, 2), (0, 1, 2))
    }
    known = [np.frombuffer(each, np.float32).reshape(PROFILES) for each in turned]
    emptied = []
    for seed in range(24):
        varied = varied_look("plane-profiles", look, Plane.AXIAL, np.random.default_rng(seed)).look.reshape(PROFILES)
        emptied.append(not varied[:, 4:].any())  # as of a scan whose background is zero
        seen = slice(0, 4) if emptied[-1] else slice(None)
        assert min(float(np.abs(varied - each)[:, seen].max()) for each in known) < 1e-5
    assert {*emptied} == {True, False}


@pytest.mark.parametrize(("plane", "across"), [(Plane.AXIAL, 2), (Plane.CORONAL, 2), (Plane.SAGITTAL, 0)])
def test_a_head_is_mirrored_from_ear_to_ear_and_never_upside_down(plane: Plane, across: int) -> None:
    blocks = np.zeros((40, 36, 36), np.float32)
    blocks[5, 7, 9] = 1.0
    look = np.concatenate([blocks.ravel(), np.arange(8, dtype=np.float32)])
    places = set()
    for seed in range(20):
        varied = varied_look("head-resnet", look, plane, np.random.default_rng(seed)).look
        assert np.array_equal(varied[-8:], look[-8:])
        varied = varied[:-8].reshape(blocks.shape)
        places.add(tuple(int(at) for at in np.argwhere(varied)[0]))
    mirrored = [5, 7, 9]
    mirrored[across] = blocks.shape[across] - 1 - mirrored[across]
    assert places == {(5, 7, 9), tuple(mirrored)}


def test_varied_halves_keep_the_planes_figures_and_the_heads_size() -> None:
    look = np.random.default_rng(0).random(4 * 16 * 32 * 32 + 8).astype(np.float32)
    varied: NDArray[np.float32] = varied_look("mirror-resnet", look, Plane.AXIAL, np.random.default_rng(3)).look
    assert np.array_equal(varied[-8:], look[-8:])
    assert not np.array_equal(varied, look)
    outline = 2 * 16 * 32 * 32
    assert varied[outline:-8].sum() == pytest.approx(look[outline:-8].sum(), rel=1e-5)


def test_a_batch_of_looks_carries_what_was_measured(tmp_path: Path) -> None:
    config = FitConfig(encoder="plane-profiles", measure_weight=1.0)
    data = looked_at("plane-profiles", scans(3), tmp_path)
    generator = np.random.default_rng(0)
    (batch,) = fed(data, [np.array([2, 0])], frozenset({Artifact.BANDING}), config, generator, "test")
    assert batch.images.shape == (2, int(np.prod(PROFILES)))
    assert batch.measures is not None
    assert batch.measures.tolist() == [[2.0], [0.0]]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_members_that_look_are_trained_with_renders_beside_the_scans(encoder: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data, more, out = tmp_path / "lisa", tmp_path / "renders", tmp_path / "run"
    write_lisa_folder(data, subjects=6)
    found = read_scans(data)
    blocks = [blocks_of(torch.from_numpy(cached_input(s, tmp_path).astype(np.float32))[None, None])[0] for s in found]
    more.mkdir()
    record = {
        "subjects": [scan.subject for scan in found],
        "planes": [scan.plane.value for scan in found],
        "labels": [list(scan.labels) for scan in found],
        "measured": [{"band_depth": 0.1} for _ in found],
    }
    np.savez(more / "part.npz", blocks=torch.stack(blocks).numpy().astype(np.float16), record=json.dumps(record))
    config = tmp_path / "site.toml"
    config.write_text(f'encoder = "{encoder}"\nwidth = 2\nepochs = 1\nbf16 = false\nmeasure_weight = 1.0\n')
    arguments = ["fit", "--data", str(data), "--out", str(out), "--config", str(config)]
    assert main([*arguments, "--artifact", "Banding", "--renders", str(more), "--cache", str(tmp_path)]) == 0
    trained = json.loads((out / "Banding.json").read_text())["training"]["training_scans"]
    split = json.loads((out / "split.json").read_text())
    assert trained == 2 * sum(split[scan.subject] == "train" for scan in found)
