"""How people's heads differ in shape, learned from some of them, and heads of shapes that nobody of these has.

A bent head is told from a strange one by knowing strangers. Some dozens of heads are learned by heart; so each is also
seen in shapes that are drawn between and beyond those of all the others: displacements from a mean head to each one's
own are found by registration, and a shape is drawn from the normal distribution that has their mean and covariance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from train.simulation.brains import Anatomy
from train.simulation.contrasts import Head
from train.simulation.upright import shape_of

Values = NDArray[np.float32]
Field = Values  # (3, x, y, z): displacement along x, y, z in steps of a shape, on the nodes of a cube

_REACH = 26.0  # steps of a shape from its centre to the cube's sides: a head and its scalp lie within
_NODES = 15  # along a side: one in some 17 mm of an adult's head
_SAMPLES = 27  # along a side, at which shapes are compared
_WEIGHTS = (1.0, 0.7, 0.5)  # of brain, white matter, fluid: not all images tell the last two apart
_STIFFNESS = 0.1  # what a squared slope of a displacement costs beside a squared difference of shares
_ROUNDS, _STEPS, _RATE = 2, 60, 0.15  # of all heads to their mean; of Adam in each, in steps of a shape
_INVERSIONS = 4  # fixed-point steps
_SMALLEST = 0.3  # volume that a drawn shape may leave of a mean head's anywhere: else it is made milder
_SPACING_MM = 2.5  # of a head in another shape: a block of a scan is twice as thick


@dataclass(frozen=True)
class Shapes:
    """Displacements (head, 3, x, y, z) from the mean head to each one's own, and the heads' places in that order."""

    fields: NDArray[np.float32]
    index: dict[str, int]  # of a source's file, or a phantom's name

    def of(self, name: str) -> Field:
        """The own shape of the head of this name."""
        return np.asarray(self.fields[self.index[name]])

    def drawn(self, generator: np.random.Generator) -> Field:
        """A shape that is as far from the mean as people are, and folds nowhere."""
        mean = self.fields.mean(axis=0)
        by = generator.standard_normal(len(self.fields)).astype(np.float32) / np.float32(np.sqrt(len(self.fields) - 1))
        away = np.tensordot(by, self.fields - mean, 1)
        while _smallest_volume(mean + away) < _SMALLEST:
            away *= np.float32(0.8)
        return np.asarray(mean + away)


def registered(shares: Sequence[Values], mapped: Callable[..., Iterable[Values]] = map) -> NDArray[np.float32]:
    """Displacements (head, 3, x, y, z) from the mean of all these heads to each one's own, by registration.

    shares: as `compared` has them. mapped: over the heads, by several processes if need be.
    """
    mean: Values = np.mean(shares, axis=0)
    fields: list[Values] = [np.zeros((3, *(_NODES,) * 3), np.float32)] * len(shares)
    for _ in range(_ROUNDS):
        fields = list(mapped(_onto, repeat(mean), shares, fields))
        mean = np.mean([_seen(its, field) for its, field in zip(shares, fields, strict=True)], axis=0)
    return np.stack(fields)


def reshaped(
    head: Head,
    frame: tuple[float, NDArray[np.float64]],
    own: Field,
    wanted: Field,
    spacing_mm: float = _SPACING_MM,
) -> Head:
    """The head as it would be if its shape were another, as long as it is, on a grid of about this spacing.

    frame: its brain's, as `train.simulation.upright.frame_of` has it. own, wanted: the displacements from the mean head
    to this one's shape, and to the other.
    """
    step, centre = frame
    size = np.array(head.channels.shape[1:])
    pitch = spacing_mm / head.spacing_mm  # of the new grid, in the old one's indices
    counts = np.ceil(size / pitch).astype(int)
    # On nodes of the new shape: where the mean head has them, and from there where this head has them.
    at = _nodes(_NODES * 2 - 1)
    there = at
    for _ in range(_INVERSIONS):
        there = at - _at(wanted, there)
    shift = there + _at(own, there) - at
    axes = [(np.arange(n) * p - c) / step for n, p, c in zip(counts, pitch, centre, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    moved = places + _sampled(torch.from_numpy(shift), torch.from_numpy(places.astype(np.float32))).numpy()
    index = moved * step + centre[:, None, None, None]
    unit = (2 * index / (size[:, None, None, None] - 1) - 1)[::-1].astype(np.float32)
    grid = torch.from_numpy(np.ascontiguousarray(np.moveaxis(unit, 0, -1)))[None]
    channels = F.grid_sample(head.channels[None], grid, align_corners=True)[0]
    where = np.argwhere(channels[1].numpy() > 0.5)
    isotropic_mm = np.full(3, _length_mm(head) / (np.ptp(where[:, 1]) + 1))
    middle = (where.min(axis=0) + where.max(axis=0)) / 2.0
    points = ((where[:: max(1, len(where) // len(head.brain_points_mm))] - middle) * isotropic_mm).astype(np.float32)
    return Head(channels, isotropic_mm, middle, points)


def _length_mm(head: Head) -> float:
    """Of the brain from front to back."""
    along = np.flatnonzero((head.channels[1] > 0.5).any(2).any(0).numpy())
    return float(along[-1] - along[0] + 1) * float(head.spacing_mm[1])


def compared(anatomy: Anatomy) -> Values:
    """A head's shares of brain, white matter and fluid (3, _SAMPLES, …) on the cube, averaged around each sample."""
    shape = shape_of(anatomy.brain, anatomy.tissue).shares
    along = np.linspace(-_REACH, _REACH, _SAMPLES)
    index = np.stack(np.meshgrid(along, along, along, indexing="ij"))
    index += (np.array(shape.shape[1:])[:, None, None, None] - 1) / 2
    soft = ndimage.gaussian_filter(shape, (0, 1, 1, 1), mode="constant")
    return np.stack([ndimage.map_coordinates(each, index, order=1) for each in soft])


def _onto(mean: Values, shares: Values, start: Values) -> Values:
    """The displacement (3, _NODES, …) that brings a head's shares onto the mean's, as smooth as its slopes cost."""
    weights, target, image = (
        torch.tensor(_WEIGHTS)[:, None, None, None],
        torch.from_numpy(mean),
        torch.from_numpy(shares),
    )
    field = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = torch.optim.Adam([field], _RATE)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        off = weights * (_warped(image, _finer(field)) - target)
        steps = 2 * _REACH / (_NODES - 1)
        slopes = sum((field.diff(dim=axis) / steps).square().mean() for axis in (1, 2, 3))
        (off.square().mean() + _STIFFNESS * slopes).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return field.detach().numpy()


def _seen(shares: Values, field: Values) -> Values:
    return _warped(torch.from_numpy(shares), _finer(torch.from_numpy(field))).numpy()


def _finer(field: Tensor) -> Tensor:
    return F.interpolate(field[None], (_SAMPLES,) * 3, mode="trilinear", align_corners=True)[0]


def _warped(image: Tensor, field: Tensor) -> Tensor:
    """An image (channel, x, y, z) on the cube, taken from where the field (3, x, y, z) leads."""
    unit = torch.linspace(-1, 1, image.shape[-1])
    places = torch.stack(torch.meshgrid(unit, unit, unit, indexing="ij"), -1)
    grid = (places + (field / _REACH).movedim(0, -1)).flip(-1)[None]
    return F.grid_sample(image[None], grid, align_corners=True, padding_mode="border")[0]


def _nodes(count: int) -> Field:
    """The places (3, …) of so many nodes along each side, in steps from the centre."""
    along = np.linspace(-_REACH, _REACH, count, dtype=np.float32)
    return np.stack(np.meshgrid(along, along, along, indexing="ij"))


def _at(field: Field, places: Field) -> Field:
    return _sampled(torch.from_numpy(np.ascontiguousarray(field)), torch.from_numpy(places)).numpy()


def _sampled(field: Tensor, places: Tensor) -> Tensor:
    """A field at places (3, …), in steps; beyond the cube as at its sides."""
    grid = (places / _REACH).movedim(0, -1).flip(-1)[None]
    return F.grid_sample(field[None], grid, align_corners=True, padding_mode="border")[0]


def _smallest_volume(field: Field) -> float:
    """The smallest determinant of the Jacobian of a displacement from the mean head, near the brain."""
    step = 2 * _REACH / (_NODES - 1)
    gradient = np.stack([np.stack(np.gradient(one, step)) for one in field])  # (displacement, place, …)
    jacobian = np.moveaxis(gradient, (0, 1), (-2, -1)) + np.eye(3)
    near = (np.linalg.norm(_nodes(_NODES), axis=0) < 20)[1:-1, 1:-1, 1:-1]
    return float(np.linalg.det(jacobian[1:-1, 1:-1, 1:-1][near]).min())
