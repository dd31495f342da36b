"""Patterns of shading: smooth at random, of the middle of the head, and of a coil at one side.

The middle is bright or dark by dielectric effects and by arrays of coils; a surface coil sees what is near it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
Kind = Literal["smooth", "middle", "one-sided"]


def smooth(shape: tuple[int, ...], nodes: NDArray[np.float64]) -> Array:
    """A smooth field (slice, row, column) through these nodes."""
    fine = torch.from_numpy(ndimage.zoom(nodes, 4, order=3, mode="nearest", grid_mode=True))[None, None]
    return np.asarray(torch.nn.functional.interpolate(fine, size=shape, mode="trilinear", align_corners=True)[0, 0])


def drawn(kind: Kind, brain: Array, generator: np.random.Generator) -> Array:
    """A pattern of this kind on the brain's grid (slice, row, column), of any height."""
    if kind == "smooth":
        return smooth(brain.shape, generator.standard_normal((3, 4, 4)))
    z, y, x = _from_centre(brain)
    if kind == "middle":
        off_z, off_y, off_x = generator.uniform(-0.2, 0.2, 3)
        width, sign = generator.uniform(0.4, 0.9), generator.choice([-1.0, 1.0])
        squares = (z - off_z) ** 2 + (y - off_y) ** 2 + (x - off_x) ** 2
        return np.asarray(sign * np.exp(-squares / (2 * width**2)), np.float32)
    direction = generator.standard_normal(3)
    coil = direction / np.linalg.norm(direction) * generator.uniform(1.1, 1.8)
    squares = sum((axis - place) ** 2 for axis, place in zip((z, y, x), coil, strict=True))
    return np.asarray(-np.log1p(squares / generator.uniform(0.3, 2.0)), np.float32)


def _from_centre(brain: Array) -> tuple[NDArray[np.float64], ...]:
    """Open axes from the brain's centre, in halves of its extent along each."""
    axes = []
    for axis in range(3):
        along = np.flatnonzero((brain > 0.5).any(axis=tuple({0, 1, 2} - {axis})))
        centre, half = (along[0] + along[-1]) / 2, (along[-1] - along[0] + 1) / 2
        axes.append((np.arange(brain.shape[axis]) - centre) / half)
    return np.ix_(*axes)
