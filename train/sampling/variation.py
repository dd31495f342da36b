"""Variation of a scan while training that changes none of the trained artifacts' severities.

Drawing is apart from applying: the mask of a scan goes where its scan goes.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from qcnode.artifacts import Artifact
from qcnode.ensemble.tissue import PLACE
from train.config import FitConfig
from train.dataset import Inputs

Image = NDArray[np.float32]
Half = NDArray[np.float16]

# Interpolation would smooth noise and lines, and a curve of intensities change their height; shading is one itself.
# Bands run along the scan's axes, more or less: a turn makes of them what no scanner does.
_KEPT_BY_TURNING = frozenset({Artifact.MOTION, Artifact.CONTRAST, Artifact.DISTORTION})
_KEPT_BY_GAMMA = frozenset({Artifact.POSITIONING, Artifact.MOTION, Artifact.DISTORTION})
# A finer or a softer image has its noise, its lines and its contrast of tissues changed with it.
_KEPT_BY_SHARPNESS = frozenset({Artifact.POSITIONING, Artifact.BANDING, Artifact.MOTION, Artifact.DISTORTION})
_TURN_DEGREES, _SCALE, _TURNED_SHARE = 15.0, 0.1, 0.7
_HALF_TURN_DEGREES = 180.0
_AIR = (0.08, 0.25)  # below such a share of the head's brightness a reconstruction may take it for background
_USUAL_AIR = 0.15
_SHIFT_VOXELS = (2, 8, 8)  # at most, along (slice, row, column); one within the slice where Positioning is trained


@dataclass(frozen=True)
class Variation:
    """What is done to one scan, in this order; the default does nothing."""

    mirrored: tuple[int, ...] = ()  # axes
    transposed: bool = False  # rows and columns exchanged
    details: float = 1.0  # times what a pixel differs by from the mean of the 3 x 3 about it
    scale: float = 1.0  # of intensities
    exponent: float = 1.0  # of intensities
    air: float | None = None  # share of the head's brightness below which all around it is set to zero
    turn: tuple[float, float] | None = None  # within the slices: radians, and the scale of lengths
    shift_voxels: tuple[int, ...] | None = None  # along (slice, row, column)

    def of(self, image: Image | Half) -> Image:
        """The image varied."""
        slices, rows, columns = image.shape
        out = np.empty((slices, columns, rows) if self.transposed else image.shape, np.float32)
        self.into(out, image)
        return out

    def into(self, out: Image, image: Image | Half) -> None:
        """Write the image varied into `out`, whatever that holds: a scan's place in a batch, say."""
        if self.air is not None:
            image = without_air(image, self.air)
        moved: Image | Half = np.flip(image, self.mirrored) if self.mirrored else image
        if self.transposed:
            moved = moved.transpose(0, 2, 1)
        target, source = _shifted(self.shift_voxels or (0, 0, 0), out.shape)
        for axis, its in enumerate(target):
            beside: tuple[slice, ...] = (slice(None),) * axis
            out[(*beside, slice(0, its.start))] = 0
            out[(*beside, slice(its.stop, None))] = 0
        if not self.turn:  # only what is kept is ever widened, at its own place
            widened(moved[source], out[target])
            self._brightened(out[target])
            return
        whole = np.empty(out.shape, np.float32)
        widened(moved, whole)
        self._brightened(whole)
        out[target] = _turned(whole, *self.turn)[source]

    def _brightened(self, image: Image) -> None:
        if self.details != 1:
            darkest = float(image.min())
            np.maximum(sharpened(torch.from_numpy(image), self.details).numpy(), darkest, out=image)
        if self.scale != 1:
            torch.from_numpy(image).mul_(self.scale)
        if self.exponent != 1:
            np.power(image, np.float32(self.exponent), out=image)

    def of_mask(self, mask: Image) -> Image:
        """What stands voxel by voxel beside the image, moved as it is; intensities stay."""
        return replace(self, details=1.0, scale=1.0, exponent=1.0, air=None).of(mask)

    def of_places(self, maps: NDArray[np.float32], voxels: int) -> NDArray[np.float32]:
        """Maps (map, slice, …) beside the image, each place so many voxels of a slice each way, moved as it is.

        Its shift within the slices is by whole places.
        """
        shift = self.shift_voxels and (self.shift_voxels[0], *(v // voxels for v in self.shift_voxels[1:]))
        moved = replace(self, shift_voxels=shift)
        return np.stack([moved.of_mask(each) for each in maps])


def drawn(artifacts: Set[Artifact], config: FitConfig, generator: np.random.Generator) -> Variation:
    """A variation as the configuration says, for members that are trained on these artifacts.

    "full": mirrored, transposed and shifted by whole voxels; turned, sharper or on another curve where that is safe;
    some without their background where that is asked for.
    "half-turn": half of the images turned within their slices by up to 180 degrees, as BRIQA and Kim et al. do,
    whatever the artifact. "none": as it is.
    """
    if config.variation == "none":
        return Variation()
    if config.variation == "half-turn":
        return Variation(turn=_turn(generator, _HALF_TURN_DEGREES) if generator.random() < 0.5 else None)
    mirrored = tuple(int(axis) for axis in np.flatnonzero(generator.random(3) < 0.5))
    transposed = bool(generator.random() < 0.5)
    scale = float(np.exp(config.intensity_jitter * generator.standard_normal()))
    exponent, turn = 1.0, None
    if artifacts <= _KEPT_BY_GAMMA:
        exponent = float(np.exp(config.gamma_jitter * generator.standard_normal()))
    details = 1.0
    if config.sharpness_jitter and artifacts <= _KEPT_BY_SHARPNESS:
        details = float(np.exp(config.sharpness_jitter * generator.standard_normal()))
    turning = artifacts <= _KEPT_BY_TURNING and not config.truth_weight  # which would blur what is to be drawn
    if turning and generator.random() < _TURNED_SHARE:
        turn = _turn(generator, _TURN_DEGREES, _SCALE)
    most = (0, 1, 1) if Artifact.POSITIONING in artifacts else _SHIFT_VOXELS
    steps = (most[0] + 1, PLACE, PLACE) if config.truth_weight else (1, 1, 1)  # slices: see `every_third`
    shift = tuple(
        step * int(generator.integers(-(v // step), v // step + 1)) for v, step in zip(most, steps, strict=True)
    )
    is_emptied = config.emptied and generator.random() < config.emptied
    air = float(generator.uniform(*_AIR)) if is_emptied else None
    return Variation(mirrored, transposed, details, scale, exponent, air, turn, shift)


def varied(image: Image, artifacts: Set[Artifact], config: FitConfig, generator: np.random.Generator) -> Image:
    """The image varied as `drawn` says."""
    return drawn(artifacts, config, generator).of(image)


def without_air(image: Image | Half, share: float) -> Image | Half:
    """The image (slice, row, column; rows and columns even) with zeros outside the head's outline.

    The outline is that of the largest piece, smoothed, above `share` of its 95th percentile, its holes filled.
    """
    slices, rows, columns = image.shape
    pairs = image.reshape(slices, rows // 2, 2, columns // 2, 2).mean((2, 4), dtype=np.float32)
    smooth = ndimage.gaussian_filter(pairs, (0.5, 1, 1))
    pieces, count = ndimage.label(smooth > share * np.percentile(smooth[smooth > 0], 95))
    if not count:
        return image
    head = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
    filled = np.stack([ndimage.binary_fill_holes(each) for each in head])
    emptied: Image | Half = np.where(filled.repeat(2, 1).repeat(2, 2), image, image.dtype.type(0))
    return emptied


def seen_as(artifact: Artifact, emptied: float, sharpness_jitter: float) -> list[Variation]:
    """The ways in which this artifact's member saw scans while it was trained: as they are, without air, sharper.

    emptied, sharpness_jitter: training's. Sharper by one standard deviation.
    """
    ways = [Variation()]
    if emptied:
        ways.append(Variation(air=_USUAL_AIR))
    if sharpness_jitter and artifact in _KEPT_BY_SHARPNESS:
        ways.append(Variation(details=float(np.exp(sharpness_jitter))))
    return ways


def also_as_trained(data: Inputs, artifact: Artifact, emptied: float, sharpness_jitter: float) -> Inputs:
    """The scans as they are, and once more in each other way that `seen_as` names."""
    ways = seen_as(artifact, emptied, sharpness_jitter)[1:]
    changed = (replace(data, images=[np.asarray(way.of(i), np.float16) for i in data.images], masks=()) for way in ways)
    return reduce(Inputs.with_more, changed, data)


def _turn(generator: np.random.Generator, most_degrees: float, most_scale: float = 0.0) -> tuple[float, float]:
    angle = float(np.deg2rad(generator.uniform(-most_degrees, most_degrees)))
    return angle, float(np.exp(generator.uniform(-most_scale, most_scale)))


def widened(image: Image | Half, out: Image) -> None:
    """Write the image into `out`, of its shape: as NumPy would, but half precision in a third of the time."""
    if image.dtype == np.float32:
        out[:] = image
    else:  # brought in order while a voxel is two bytes
        torch.from_numpy(out).copy_(torch.from_numpy(image.copy()))


def sharpened(image: Tensor, details: float) -> Tensor:
    """The image (slice, row, column) with so many times what each pixel differs by from the 3 x 3 about it."""
    around = F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0]
    return image + (details - 1) * (image - around)


def _shifted(voxels: tuple[int, ...], shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where what is kept of an image that moves by whole voxels comes to lie, and where it lay; the rest stays zero."""
    target = tuple(slice(max(v, 0), n + min(v, 0)) for v, n in zip(voxels, shape, strict=True))
    source = tuple(slice(max(-v, 0), n + min(-v, 0)) for v, n in zip(voxels, shape, strict=True))
    return target, source


def _turned(image: Image, angle: float, scale: float) -> Image:
    """The image turned and scaled within its slices, all of them alike; its lowest value comes in from outside."""
    lowest = image.min()
    turn = scale * np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    size = [1, 1, *image.shape[1:]]
    grid = F.affine_grid(torch.from_numpy(turn[None]).float(), size, align_corners=False)
    turned: Image = F.grid_sample(torch.from_numpy(image - lowest)[None], grid, align_corners=False)[0].numpy()
    turned += lowest
    return turned
