"""A head lies on the atlas in one way, whichever plane it was scanned in and wherever it lay."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.atlas import ATLAS, AtlasResNet, on_atlas
from train.simulation.brains import anatomy, phantoms
from train.simulation.contrasts import Head, head
from train.simulation.draws import Draw, draw
from train.simulation.renders import rendered
from train.simulation.scans import clean_scan

CLEAN = draw(np.random.default_rng(5), dict.fromkeys(Artifact, Severity.NONE), slight=False)


@pytest.fixture(scope="module")
def its() -> Head:
    torch.set_num_threads(1)
    return head(anatomy(phantoms(2)[0]), "T2w", 165.0, np.random.default_rng(3))


def blocks(its: Head, plane: Plane, drawn: Draw = CLEAN) -> Tensor:
    scan = clean_scan(its, plane, np.random.default_rng(2))
    return torch.from_numpy(rendered(scan, drawn, np.random.default_rng(1)).blocks.astype(np.float32))


def likeness(one: Tensor, other: Tensor) -> float:
    return float(np.corrcoef(one.flatten(), other.flatten())[0, 1])


@pytest.mark.parametrize(("one", "other"), [*permutations(Plane, 2)])
def test_a_head_lies_the_same_way_round_in_every_plane_but_the_wrong_one(its: Head, one: Plane, other: Plane) -> None:
    lying = on_atlas(blocks(its, one), one)
    alike = likeness(lying, on_atlas(blocks(its, other), other))
    assert alike > 0.9
    assert likeness(lying, on_atlas(blocks(its, one), other)) < alike - 0.05
    for axis in (0, 1, 2):  # the phantom's left and right differ little
        assert likeness(lying, on_atlas(blocks(its, other), other).flip(axis)) < alike


@pytest.mark.parametrize("plane", Plane)
@pytest.mark.parametrize("offset_mm", [(19.2, 0.0, 0.0), (0.0, -12.8, 0.0), (0.0, 0.0, 12.8)])
def test_a_head_off_the_middle_is_laid_into_it(its: Head, plane: Plane, offset_mm: tuple[float, float, float]) -> None:
    levels = dict.fromkeys(Artifact, Severity.NONE) | {Artifact.POSITIONING: Severity.MODERATE}
    off = draw(np.random.default_rng(5), levels, slight=False)
    off = replace(off, tilt_degrees=(0.0, 0.0, 0.0), offset_mm=offset_mm)
    assert likeness(on_atlas(blocks(its, plane), plane), on_atlas(blocks(its, plane, off), plane)) > 0.93


def test_the_look_holds_all_three_ways_and_the_upright_one_decides(its: Head) -> None:
    torch.manual_seed(0)
    encoder = AtlasResNet(2).eval()
    scan = blocks(its, Plane.CORONAL)
    with torch.no_grad():
        look = encoder.look(scan)
        halves, cubes = look[: -math.prod(ATLAS)], look[-math.prod(ATLAS) :].view(ATLAS)
        assert torch.equal(halves, encoder.mirror.look(scan))
        assert torch.equal(cubes[1], on_atlas(scan, Plane.CORONAL))
        seen = encoder.seen_on(cubes)
        encoder.upright.weight.mul_(1e6)  # sure of one of them
        upright = encoder.upright(seen)[:, 0]
        features = encoder.features_of(look[None])[0]
    assert torch.allclose(features[-3 - AtlasResNet.SEEN : -3], seen[upright.argmax()], atol=1e-5)
    assert torch.allclose(features[-3:], upright, rtol=1e-4)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_what_is_no_head_has_finite_features(level: float) -> None:
    encoder = AtlasResNet(2).eval()
    with torch.no_grad():
        assert bool(encoder(torch.full((1, 1, 40, 144, 144), level)).isfinite().all())
