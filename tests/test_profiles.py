"""A step across a whole plane is seen in its profile, however busy the anatomy is."""

from __future__ import annotations

import pytest
import torch

from qcnode.ensemble import networks
from qcnode.ensemble.blocks import blocks_of
from qcnode.ensemble.profiles import TILES, tile_profiles
from qcnode.ensemble.profiles import plane_profiles as profiles_of_blocks


def plane_profiles(image: torch.Tensor) -> torch.Tensor:
    return profiles_of_blocks(blocks_of(image[None, None])[0])


@pytest.mark.parametrize(("axis", "position", "block"), [(0, 17, 1), (1, 60, 4), (2, 100, 4)])
def test_a_step_of_a_tenth_is_the_highest_of_its_profile_and_of_no_other(axis: int, position: int, block: int) -> None:
    image = 1 + 0.3 * torch.rand(40, 144, 144, generator=torch.Generator().manual_seed(3))
    image.narrow(axis, position, image.shape[axis] - position).mul_(1.1)
    profiles = plane_profiles(image)
    assert profiles.shape == (3, 8, 40)
    steps = profiles[:, 1]  # of the head, clipped at .15
    assert int(steps[axis].argmax()) == position // block - 1
    others = [other for other in range(3) if other != axis]
    assert float(steps[axis].max()) > 5 * float(steps[others].abs().max())


def test_head_and_air_are_told_apart_and_padding_is_neither() -> None:
    image = torch.zeros(40, 144, 144)
    image[5:35, 20:120, 20:120] = 0.1
    image[10:30, 40:100, 40:100] = 1.0
    head_size, air_size = plane_profiles(image)[0, [3, 7]] * 400
    assert head_size[0] == air_size[0] == 0
    assert head_size[15] == 15 * 15
    assert air_size[15] == 25 * 25 - 15 * 15


def test_the_encoder_gives_the_features_that_it_states() -> None:
    encoder, channels = networks.encoder("plane-profiles", 4)
    assert channels == 48
    assert encoder.eval()(torch.rand(2, 1, 40, 144, 144)).shape == (2, channels)


def test_the_rim_of_an_empty_background_says_nothing() -> None:
    image = torch.zeros(40, 144, 144)
    image[5:35, 22:122, 22:122] = 1.0  # the edge goes through blocks, which are half full
    image[5:35, 22:24, 22:122] = 0.2
    profiles = plane_profiles(image)
    assert profiles[:, 3].any()
    assert not profiles[:, 4:].any()
    noisy = plane_profiles(image + 0.05 * torch.rand(image.shape, generator=torch.Generator().manual_seed(5)))
    assert noisy[:, 7].any()


def test_tiles_add_up_to_their_plane() -> None:
    image = torch.rand(2, 1, 40, 144, 144, generator=torch.Generator().manual_seed(7))
    image[:, :, :, 60:] *= 3
    tiles = tile_profiles(blocks_of(image))
    for scan, its in zip(image[:, 0], tiles, strict=True):
        sizes, whole = its[:, [3, 7]].sum((3, 4)) * 60, plane_profiles(scan)[:, [3, 7]] * 400
        torch.testing.assert_close(sizes, whole)
    assert tiles.shape == (2, 3, 8, 40, TILES, TILES)


def test_a_step_that_lies_oblique_comes_later_in_each_tile() -> None:
    image = 1 + 0.02 * torch.rand(40, 144, 144, generator=torch.Generator().manual_seed(3))
    row, column = torch.meshgrid(torch.arange(144.0), torch.arange(144.0), indexing="ij")
    image *= torch.where(row > 50 + 0.3 * column, 1.15, 1.0)
    steps = tile_profiles(blocks_of(image[None, None]))[0, 1, 1]  # across rows, of the head: (position, tile, tile)
    found = steps.argmax(0)  # (tile of slices, tile of columns)
    assert found[1].tolist() == sorted(found[1].tolist())
    assert found[1, 2] - found[1, 0] == pytest.approx(0.3 * 96 / 4, abs=2)


def test_tiles_of_air_that_is_a_rim_alone_say_nothing() -> None:
    image = torch.zeros(2, 40, 144, 144)
    image[:, 5:35, 22:122, 22:122] = 1.0
    image[:, 5:35, 22:24, 22:122] = 0.2
    image[1] += 0.05 * torch.rand(image[1].shape, generator=torch.Generator().manual_seed(5))
    tiles = tile_profiles(blocks_of(image[:, None]))
    assert not tiles[0, :, 4:].any()
    assert tiles[1, :, 4:].any()


def test_the_tiles_encoder_gives_the_features_that_it_states() -> None:
    encoder, channels = networks.encoder("tile-profiles", 4)
    assert channels == 64
    scans = torch.rand(2, 1, 40, 144, 144, generator=torch.Generator().manual_seed(2))
    both = encoder.eval()(scans)
    assert both.shape == (2, channels)
    torch.testing.assert_close(encoder(blocks_of(scans)[:, None]), both)  # blocks, made before, are the same to it
    torch.testing.assert_close(encoder(scans[1:]), both[1:])
