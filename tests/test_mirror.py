"""The mirror plane is found where it is, and the halves are each other's mirror."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from qcnode.ensemble import networks
from qcnode.ensemble.mirror import halves_of, mirror_plane

_SHAPE, _SPACING_MM = (40, 36, 36), torch.tensor([5.0, 6.4, 6.4])


def head(axis: int, tilts: tuple[float, float], offset_mm: float, lesion: bool = False) -> tuple[Tensor, Tensor]:
    """A coarse image of a head with eyes and a neck, whose plane of symmetry lies so; and the plane's normal."""
    places = torch.cartesian_prod(
        *((torch.arange(n) - (n - 1) / 2) * mm for n, mm in zip(_SHAPE, _SPACING_MM.tolist(), strict=True))
    )
    first, second = (other for other in range(3) if other != axis)
    normal = torch.eye(3)[axis]
    normal[first], normal[second] = (math.tan(math.radians(tilt)) for tilt in tilts)
    normal = normal / normal.norm()
    centre = offset_mm * normal
    along = torch.eye(3)[first] - normal[first] * normal
    along = along / along.norm()
    across = torch.linalg.cross(normal, along)
    x, y, z = ((places - centre) @ direction for direction in (normal, along, across))
    skull = torch.sigmoid((1 - (x / 60) ** 2 - (y / 80) ** 2 - (z / 75) ** 2) * 12)
    eyes = torch.exp(-(((x.abs() - 25) / 12) ** 2) - ((y - 40) / 12) ** 2 - (z / 12) ** 2)
    neck = torch.sigmoid((30 - (x.square() + (y + 20).square()).sqrt()) / 3) * torch.sigmoid((-z - 40) / 5)
    image = torch.maximum(skull * (1 + 0.3 * torch.sin(y / 25) + 0.3 * torch.sin(z / 30)), 0.7 * neck) + 0.8 * eyes
    if lesion:
        image = image + 0.8 * torch.exp(-(((x - 35) / 15) ** 2) - ((y + 20) / 15) ** 2 - (z / 15) ** 2)
    return image.view(_SHAPE), normal


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("tilts", "offset_mm"), [((0.0, 0.0), 0.0), ((14.0, -21.0), 9.0), ((-30.0, 5.0), -6.0)])
def test_a_symmetric_head_gives_its_plane_wherever_it_lies(
    axis: int, tilts: tuple[float, float], offset_mm: float
) -> None:
    image, normal = head(axis, tilts, offset_mm)
    found = mirror_plane(image)
    assert found.likeness > 0.97
    assert math.degrees(math.acos(min(1.0, abs(float(found.normal @ normal))))) < 4
    assert float(found.origin @ normal) == pytest.approx(offset_mm, abs=2.5)


def test_the_halves_of_a_symmetric_head_are_alike_and_a_lesion_is_in_one_of_them() -> None:
    image, _ = head(2, (12.0, -8.0), 5.0)
    left, right = halves_of(image, mirror_plane(image))
    unlike, _ = head(2, (12.0, -8.0), 5.0, lesion=True)
    one, other = halves_of(unlike, mirror_plane(unlike))
    assert float((left - right).abs().mean()) < 0.02 < 0.4 < float((one - other).abs().max())
    assert mirror_plane(unlike).likeness < mirror_plane(image).likeness


def test_what_is_nearest_the_plane_comes_first() -> None:
    image, _ = head(0, (0.0, 0.0), 0.0)
    halves = halves_of(image, mirror_plane(image))
    assert halves.shape == (2, 16, 32, 32)
    assert bool((halves[:, 0].mean((1, 2)) > halves[:, 10].mean((1, 2))).all())


def test_an_empty_image_has_some_plane_and_finite_features() -> None:
    encoder, channels = networks.encoder("mirror-resnet", 2)
    with torch.no_grad():
        features = encoder.eval()(torch.zeros(1, 1, 40, 144, 144))
    assert features.shape == (1, channels)
    assert bool(features.isfinite().all())


def test_the_features_do_not_change_when_the_image_is_mirrored() -> None:
    image = head(2, (12.0, -8.0), 5.0, lesion=True)[0]
    large = image.repeat_interleave(4, 1).repeat_interleave(4, 2)[None, None]
    encoder = networks.encoder("mirror-resnet", 2)[0].eval()
    with torch.no_grad():
        features, mirrored = encoder(large), encoder(large.flip(4))
    assert float((features - mirrored).abs().mean()) < 0.05 * float(features.abs().mean())
