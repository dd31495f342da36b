"""Stacks of few slices: what is in every slice is seen in a few as it is in many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.runtime import Ensemble
from qcnode.ensemble.stacks import back_and_forth, can_be_laid, laid_out, slices_there
from qcnode.ensemble.weights import read_manifest, shipped_folder
from qcnode.imaging import phantom
from qcnode.imaging.preprocess import BLOCKS, CUBE, INPUT_SHAPE, PREPROCESSING, network_input
from qcnode.imaging.volume import Volume


@given(st.integers(1, 40), st.integers(1, 40))
def test_neighbours_stay_neighbours(count: int, depth: int) -> None:
    order = back_and_forth(count, depth)
    assert len(order) == depth
    assert set(order) == set(range(min(count, depth)))
    assert np.abs(np.diff(order)).max(initial=0) <= 1


def stack(first: int, last: int) -> torch.Tensor:
    """A network input whose slices are filled with their own number, from `first`; the others are padding."""
    images = torch.zeros(1, 1, *INPUT_SHAPE)
    for number in range(first, last):
        images[0, 0, number, 5:, 5:] = number
    return images


def test_a_short_stack_is_laid_to_the_usual_number_in_the_middle() -> None:
    laid = laid_out(stack(18, 21), (30, 36))
    assert laid.shape == (1, 1, *INPUT_SHAPE)
    assert slices_there(laid[0, 0]) == (2, 38)
    assert laid[0, 0, 2:10, -1, -1].tolist() == [18, 19, 20, 20, 19, 18, 18, 19]
    assert laid[0, 0, :, 0, 0].count_nonzero() == 0


@pytest.mark.parametrize(("first", "last", "known"), [(5, 35, (30, 36)), (10, 20, None), (0, 0, (30, 36))])
def test_other_stacks_stay_as_they_are(first: int, last: int, known: tuple[int, int] | None) -> None:
    images = stack(first, last)
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


def test_the_manifest_says_which_members_are_for_laid_stacks() -> None:
    slices = {entry.artifact: entry.slices for entry in read_manifest(shipped_folder()).members}
    laid = {artifact for artifact, known in slices.items() if known is not None}
    assert laid == {Artifact.NOISE, Artifact.ZIPPER, Artifact.MOTION}
    assert {slices[artifact] for artifact in laid} == {(30, 37)}
    assert Path(shipped_folder()).is_dir()
