"""Stacks of few slices: what is in every slice is seen in a few as it is in many."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.runtime import Ensemble
from qcnode.ensemble.stacks import back_and_forth, can_be_laid, laid_out, there
from qcnode.ensemble.weights import Extents, read_manifest, shipped_folder
from qcnode.imaging import phantom
from qcnode.imaging.preprocess import BLOCKS, CUBE, INPUT_SHAPE, PREPROCESSING, network_input
from qcnode.imaging.volume import Volume


@given(st.integers(1, 40), st.integers(1, 40))
def test_neighbours_stay_neighbours(count: int, depth: int) -> None:
    order = back_and_forth(count, depth)
    assert len(order) == depth
    assert set(order) == set(range(min(count, depth)))
    assert np.abs(np.diff(order)).max(initial=0) <= 1


KNOWN: Extents = ((30, 36), (114, 130), (114, 124))


def scan(
    slices: tuple[int, int], rows: tuple[int, int] = (10, 140), columns: tuple[int, int] = (12, 132)
) -> torch.Tensor:
    """A network input with a field of view from and to these indices; each voxel tells where it was."""
    images = torch.zeros(1, 1, *INPUT_SHAPE)
    box = tuple(slice(*extent) for extent in (slices, rows, columns))
    indices = torch.stack(torch.meshgrid(*(torch.arange(n) for n in INPUT_SHAPE), indexing="ij"))
    images[0, 0][box] = (indices * torch.tensor([1e6, 1e3, 1.0])[:, None, None, None]).sum(0)[box]
    return images


def test_a_short_stack_is_laid_to_the_usual_number_in_the_middle() -> None:
    laid = laid_out(scan((18, 21)), KNOWN)
    assert laid.shape == (1, 1, *INPUT_SHAPE)
    assert there(laid[0, 0], 0) == (2, 38)
    assert (laid[0, 0, 2:10, 70, 70] // 1e6).tolist() == [18, 19, 20, 20, 19, 18, 18, 19]
    assert laid[0, 0, :, 0, 0].count_nonzero() == 0


def test_a_small_field_of_view_is_mirrored_at_its_edges() -> None:
    images = scan((3, 37), (30, 114), (32, 112))
    laid = laid_out(images, KNOWN)[0, 0]
    assert [there(laid, axis) for axis in range(3)] == [(3, 37), (7, 137), (10, 134)]
    assert laid[5, 7, 10] == images[0, 0, 5, 30, 32]
    assert laid[5, 7 + 84, 10] == images[0, 0, 5, 113, 32]
    assert laid[5, 7, 10 + 81] == images[0, 0, 5, 30, 110]


def test_a_head_on_a_background_of_zero_is_no_small_field_of_view() -> None:
    images = scan((3, 37), (30, 114), (32, 112))
    images[..., 30:114, 40:100] *= torch.rand(84, 60) > 0.5
    assert laid_out(images, KNOWN) is images


@pytest.mark.parametrize(
    ("images", "known"), [(scan((5, 35)), KNOWN), (scan((10, 20)), None), (torch.zeros(1, 1, *INPUT_SHAPE), KNOWN)]
)
def test_other_scans_stay_as_they_are(images: torch.Tensor, known: Extents | None) -> None:
    assert laid_out(images, known) is images


def test_only_what_is_in_each_slice_is_looked_for_in_laid_stacks() -> None:
    there = {artifact for artifact in Artifact if can_be_laid(artifact, "compact-resnet", PREPROCESSING)}
    assert there == {Artifact.NOISE, Artifact.ZIPPER, Artifact.MOTION}
    assert not can_be_laid(Artifact.NOISE, "compact-resnet", CUBE), "which is stretched, and has no padding"
    assert can_be_laid(Artifact.NOISE, "compact-resnet", BLOCKS)
    assert not can_be_laid(Artifact.NOISE, "mirror-resnet", PREPROCESSING)


@pytest.fixture(scope="module")
def shipped() -> Ensemble:
    return Ensemble.load(device="cpu", threads=2)


def cut(volume: Volume, slices: int) -> Volume:
    start = (len(volume.array) - slices) // 2
    return Volume(volume.array[start : start + slices], volume.affine)


@pytest.mark.parametrize("slices", [12, 16, 20, 24])
def test_noise_in_a_short_stack_is_severe_and_nothing_moved_in_a_clean_one(shipped: Ensemble, slices: int) -> None:
    """Padded to the usual depth, a stack of 12 to 24 slices was never noisy, and clean ones had moved."""
    head = phantom.head(np.random.default_rng(61), Plane.AXIAL)
    clean = shipped.grade(network_input(cut(head, slices)))
    for artifact in (Artifact.NOISE, Artifact.ZIPPER, Artifact.MOTION):
        assert clean[artifact].severity is Severity.NONE
    mean = float(head.array[head.array > head.array.mean()].mean())
    noisy = Volume(phantom.add_noise(head.array, 0.28 * mean, np.random.default_rng(1)), head.affine)
    assert shipped.grade(network_input(cut(noisy, slices)))[Artifact.NOISE].severity is Severity.SEVERE


def test_severe_noise_fills_a_small_field_of_view_as_it_does_a_large_one(shipped: Ensemble) -> None:
    head = phantom.head(np.random.default_rng(61), Plane.AXIAL)
    mean = float(head.array[head.array > head.array.mean()].mean())
    noisy = phantom.add_noise(head.array, 0.28 * mean, np.random.default_rng(1))
    small = Volume(noisy[:, 24:-24, 12:-12], head.affine)
    assert shipped.grade(network_input(small))[Artifact.NOISE].severity is Severity.SEVERE


def test_the_manifest_says_which_members_are_for_laid_scans() -> None:
    extents = {entry.artifact: entry.extents for entry in read_manifest(shipped_folder()).members}
    assert {artifact for artifact, known in extents.items() if known is not None} == {
        Artifact.NOISE,
        Artifact.ZIPPER,
        Artifact.MOTION,
    }
    for artifact, fewest in {Artifact.NOISE: 30, Artifact.ZIPPER: 30, Artifact.MOTION: 26}.items():
        assert extents[artifact] == ((fewest, 36), (114, 134), (114, 124))
