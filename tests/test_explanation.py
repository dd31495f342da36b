"""Which slices carry a grade: artifacts that were put into known slices, as the shipped weights see them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from qcnode.artifacts import Artifact, Plane
from qcnode.ensemble.explanation import carrying_slices, faulty
from qcnode.ensemble.model import Member, channels_last
from qcnode.ensemble.runtime import load_member
from qcnode.ensemble.weights import read_manifest, shipped_folder
from qcnode.imaging import phantom
from qcnode.imaging.preprocess import network_input, shown_slices
from qcnode.imaging.volume import Volume
from train.simulation import physics

FIRST, LAST = 15, 22  # past the last of the slices that are spoilt


@cache
def member(artifact: Artifact) -> Member:
    entry = next(one for one in read_manifest(shipped_folder()).members if one.artifact is artifact)
    return load_member(shipped_folder(), entry)


@cache
def head(plane: Plane = Plane.AXIAL) -> Volume:
    return phantom.head(np.random.default_rng(11), plane)


def found(artifact: Artifact, volume: Volume) -> tuple[int, ...] | None:
    images = torch.from_numpy(network_input(volume))[None, None]
    return carrying_slices(member(artifact), artifact, images, shown_slices(volume))


def spoilt(artifact: Artifact, clean: Volume, slices: slice) -> Volume:
    """The head with the artifact, severe, in these slices alone."""
    generator = np.random.default_rng(12)
    array = clean.array.copy()
    mean = float(array[array > array.mean()].mean())
    if artifact is Artifact.NOISE:
        worse = phantom.add_noise(array, 0.24 * mean, generator)
    elif artifact is Artifact.ZIPPER:
        phases = generator.uniform(0, 2 * np.pi, (1, len(array), array.shape[1]))
        place = [0.4 * array.shape[2]]
        worse = np.abs(array + mean * physics.zipper(array.shape, 1, place, phases, (0, len(array))))
    else:
        poses = [array, *(np.roll(array, shift, (1, 2)) for shift in ((4, 2), (-5, 3)))]
        lines = np.arange(array.shape[1]) // 3 % 3
        lines[abs(np.arange(len(lines)) - len(lines) // 2) < 2] = 0
        worse = np.abs(phantom.mix_poses(poses, lines, 1))
    array[slices] = worse[slices]
    return Volume(array.astype(np.float32), clean.affine)


@pytest.mark.parametrize("plane", Plane)
@pytest.mark.parametrize("artifact", [Artifact.NOISE, Artifact.ZIPPER, Artifact.MOTION])
def test_an_artifact_in_known_slices_is_found_there(artifact: Artifact, plane: Plane) -> None:
    there = found(artifact, spoilt(artifact, head(plane), slice(FIRST, LAST)))
    assert there
    hits = set(there) & set(range(FIRST, LAST))
    assert len(hits) >= 6, there  # of seven
    assert len(there) <= len(hits) + 4, there  # a window's reach beyond both ends


@pytest.mark.parametrize("artifact", [Artifact.NOISE, Artifact.ZIPPER, Artifact.MOTION])
def test_what_is_in_every_slice_is_the_whole_scan_s(artifact: Artifact) -> None:
    assert found(artifact, spoilt(artifact, head(), slice(None))) == ()


@pytest.mark.parametrize("artifact", [Artifact.POSITIONING, Artifact.CONTRAST, Artifact.DISTORTION])
def test_what_is_as_large_as_the_head_is_in_no_few_slices(artifact: Artifact) -> None:
    assert found(artifact, head()) == ()


def test_the_order_of_the_slices_is_the_volume_s() -> None:
    volume = spoilt(Artifact.ZIPPER, head(), slice(4, 10))
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = len(volume.array) - 1
    backwards = Volume(np.ascontiguousarray(volume.array[::-1]), volume.affine @ flip)
    forth, back = found(Artifact.ZIPPER, volume), found(Artifact.ZIPPER, backwards)
    assert forth
    assert back
    assert sorted(len(volume.array) - 1 - number for number in back) == list(forth)


def test_slices_that_are_resampled_for_the_network_are_named_by_the_volume_s_numbers() -> None:
    thick = spoilt(Artifact.ZIPPER, head(), slice(FIRST, LAST))
    affine = thick.affine @ np.diag([0.5, 1, 1, 1])
    thin = Volume(np.repeat(thick.array, 2, axis=0), affine)
    there = found(Artifact.ZIPPER, thin)
    assert there
    assert set(range(2 * FIRST + 2, 2 * LAST - 2)) <= set(there) <= set(range(2 * FIRST - 5, 2 * LAST + 5))


def test_an_encoder_that_cannot_tell_says_so() -> None:
    other = channels_last(Member("resnet10", 4).eval())
    shown = np.arange(40)
    assert carrying_slices(other, Artifact.NOISE, torch.zeros(1, 1, 40, 144, 144), shown) is None


margins = arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(-30, 30, width=32))


@given(margins)
def test_few_slices_or_none_stand_out(own: NDArray[np.float32]) -> None:
    out = faulty(own, -2.0)
    assert out.shape == own.shape
    assert not out.any() or out.mean() <= 0.65
    assert not out[own <= -2].any()
    assert np.array_equal(faulty(own[::-1], -2.0)[::-1], out)
