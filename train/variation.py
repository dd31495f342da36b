"""Variation of a scan while training that changes none of the trained artifacts' severities."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from qcnode.artifacts import Artifact
from train.config import FitConfig

Image = NDArray[np.float32]

# Interpolation would smooth noise and lines, and a curve of intensities change their height; shading is one itself.
# Bands run along the scan's axes, more or less: a turn makes of them what no scanner does.
_KEPT_BY_TURNING = frozenset({Artifact.MOTION, Artifact.CONTRAST, Artifact.DISTORTION})
_KEPT_BY_GAMMA = frozenset({Artifact.POSITIONING, Artifact.MOTION, Artifact.DISTORTION})
_TURN_DEGREES, _SCALE, _TURNED_SHARE = 15.0, 0.1, 0.7
_HALF_TURN_DEGREES = 180.0
_SHIFT_VOXELS = (2, 8, 8)  # at most, along (slice, row, column); one within the slice where Positioning is trained


def varied(image: Image, artifacts: Set[Artifact], config: FitConfig, generator: np.random.Generator) -> Image:
    """The image varied as the configuration says.

    "full": mirrored, transposed and shifted by whole voxels; turned or on another curve where that is safe.
    "half-turn": half of the images turned within their slices by up to 180 degrees, as BRIQA and Kim et al. do,
    whatever the artifact. "none": as it is.
    """
    if config.variation == "none":
        return image
    if config.variation == "half-turn":
        return _turned(image, generator, _HALF_TURN_DEGREES) if generator.random() < 0.5 else image
    mirrored = np.flip(image, tuple(np.flatnonzero(generator.random(3) < 0.5)))
    if generator.random() < 0.5:
        mirrored = mirrored.transpose(0, 2, 1)
    scale = np.exp(config.intensity_jitter * generator.standard_normal())
    varied: Image = mirrored * np.float32(scale)
    if artifacts <= _KEPT_BY_GAMMA:
        varied **= np.float32(np.exp(config.gamma_jitter * generator.standard_normal()))
    if artifacts <= _KEPT_BY_TURNING and generator.random() < _TURNED_SHARE:
        varied = _turned(varied, generator, _TURN_DEGREES, _SCALE)
    most = (0, 1, 1) if Artifact.POSITIONING in artifacts else _SHIFT_VOXELS
    return _shifted(varied, [int(generator.integers(-voxels, voxels + 1)) for voxels in most])


def _shifted(image: Image, voxels: list[int]) -> Image:
    """The image moved by whole voxels; zeros come in at the other side."""
    out = np.zeros_like(image)
    target = tuple(slice(max(v, 0), n + min(v, 0)) for v, n in zip(voxels, image.shape, strict=True))
    source = tuple(slice(max(-v, 0), n + min(-v, 0)) for v, n in zip(voxels, image.shape, strict=True))
    out[target] = image[source]
    return out


def _turned(image: Image, generator: np.random.Generator, most_degrees: float, most_scale: float = 0.0) -> Image:
    """The image turned and scaled within its slices, all of them alike; its lowest value comes in from outside."""
    angle = np.deg2rad(generator.uniform(-most_degrees, most_degrees))
    scale = np.exp(generator.uniform(-most_scale, most_scale))
    lowest = image.min()
    turn = scale * np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    size = [1, 1, *image.shape[1:]]
    grid = F.affine_grid(torch.from_numpy(turn[None]).float(), size, align_corners=False)
    turned: Image = F.grid_sample(torch.from_numpy(image - lowest)[None], grid, align_corners=False)[0].numpy()
    turned += lowest
    return turned
