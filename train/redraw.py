"""Fresh draws of an artifact onto network inputs without it, while training: no epoch sees the same scans twice.

Only artifacts whose physics works on a finished scan: bands and shading multiply it, a distortion moves its voxels
(those of severity 0 are moved a little too, so that interpolation says nothing).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from qcnode.artifacts import Artifact, Severity
from train import physics
from train.draws import Draw, draw
from train.severity import BAND_DEPTH, SHADING_RATIO, Interval

Image = NDArray[np.float32]

# In the order of the physics. Interpolation would smooth noise, and shading would change a line's height: those two
# are redrawn only on scans without noise and lines, so that the other labels stay true.
REDRAWN = (Artifact.DISTORTION, Artifact.CONTRAST, Artifact.BANDING)
_SPOILT = {
    Artifact.DISTORTION: frozenset({Artifact.NOISE, Artifact.ZIPPER}),
    Artifact.CONTRAST: frozenset({Artifact.NOISE, Artifact.ZIPPER}),
    Artifact.BANDING: frozenset[Artifact](),
}
_SPACING_MM = np.array([5.0, 1.6, 1.6])  # of a network input, near enough
_COARSE = (2, 6, 6)  # voxels a step of the grid on which a displacement is computed


def can_be_redrawn(artifact: Artifact, severities: Mapping[Artifact, Severity]) -> bool:
    """Whether a scan of these severities can be given the artifact without another label becoming untrue."""
    none = Severity.NONE
    return artifact in REDRAWN and all(severities[a] == none for a in {artifact, *_SPOILT[artifact]})


def redrawn(image: Image, artifact: Artifact, severity: Severity, generator: np.random.Generator) -> Image:
    """The input with this artifact drawn anew at this severity; `image` has it at severity 0. One of REDRAWN."""
    drawn = draw(generator, dict.fromkeys(Artifact, Severity.NONE) | {artifact: severity})
    box, head = _field_of_view(image), ndimage.zoom(image[::2, ::4, ::4] > 0.5, (2, 4, 4), order=0)
    out = image.copy()
    if artifact is Artifact.BANDING:
        out[box] *= _banding(drawn, severity, head[box], generator)
    elif artifact is Artifact.CONTRAST:
        ratio = _inside(SHADING_RATIO[severity], generator)
        if severity:
            out[box] *= physics.shading(out[box].shape, head[box].astype(np.float32), ratio, _nodes(generator))
    else:
        out = _distorted(image, drawn, head, generator)
    return out


def _banding(drawn: Draw, severity: Severity, head: NDArray[np.bool_], generator: np.random.Generator) -> Image:
    """A field of bands whose largest change in the head is in the severity's interval."""
    axes = np.ogrid[tuple(slice(0, n) for n in head.shape)]
    unit = [a / (n - 1) - 0.5 for a, n in zip(axes, head.shape, strict=True)]
    along = sum(u * d for u, d in zip(unit, drawn.band_direction, strict=True))
    profile = physics.bands((np.asarray(along) + 0.5).astype(np.float32), drawn.bands, drawn.band_flat)
    depth = _inside(BAND_DEPTH[severity], generator)
    sign = 1.0 if sum(drawn.band_direction) > 0 else -1.0
    return (1 + sign * depth / max(float(profile[head].max()), 0.5) * profile).astype(np.float32)


def _distorted(image: Image, drawn: Draw, head: NDArray[np.bool_], generator: np.random.Generator) -> Image:
    """The image pulled along plane waves of the drawn displacement and strain."""
    directions, polarisations = generator.standard_normal((2, 4, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    phases = generator.uniform(0, 2 * np.pi, 4)
    centre = (np.array(image.shape) - 1) / 2
    inside = np.argwhere(head[::2, ::4, ::4]) * (2, 4, 4)
    points = (inside[generator.permutation(len(inside))[:600]] - centre) * _SPACING_MM
    largest = drawn.displacement_mm or float(generator.uniform(0.2, 1.4))
    short, long = np.log(40.0), np.log(900.0)
    for _ in range(10):
        middle = (short + long) / 2
        waves = physics.Waves(directions, polarisations, phases, points, float(np.exp(middle)), largest)
        short, long = (short, middle) if physics.strain(waves.jacobian(points)) < drawn.strain else (middle, long)
    waves = physics.Waves(directions, polarisations, phases, points, float(np.exp((short + long) / 2)), largest)
    grid = np.stack(
        np.meshgrid(
            *[np.linspace(-1, 1, n // s + 1) for n, s in zip(image.shape, _COARSE, strict=True)], indexing="ij"
        ),
        -1,
    )
    moved = waves(grid.reshape(-1, 3) * centre * _SPACING_MM).reshape(grid.shape) / _SPACING_MM / centre
    coarse = torch.from_numpy(np.moveaxis(grid + moved, -1, 0)[None]).float()
    full = F.interpolate(coarse, size=image.shape, mode="trilinear", align_corners=True)[0]
    sampling = full.flip(0).permute(1, 2, 3, 0)[None]  # grid_sample takes (column, row, slice)
    pulled: Image = F.grid_sample(torch.from_numpy(image)[None, None], sampling, align_corners=True)[0, 0].numpy()
    return pulled


def _field_of_view(image: Image) -> tuple[slice, ...]:
    """The box that the scan fills; beyond it the input is padded with zeros."""
    filled = image > 0
    extents = [np.flatnonzero(filled.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    return tuple(slice(int(e[0]), int(e[-1]) + 1) for e in extents)


def _inside(interval: Interval, generator: np.random.Generator) -> float:
    return float(generator.uniform(interval.low, interval.high))


def _nodes(generator: np.random.Generator) -> NDArray[np.float64]:
    return generator.standard_normal((3, 4, 4))
