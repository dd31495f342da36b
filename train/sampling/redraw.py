"""Fresh draws of an artifact onto network inputs without it, while training: no epoch sees the same scans twice.

Only artifacts whose physics works on a finished scan: bands and shading multiply it, a distortion moves its voxels
(those of severity 0 are moved a little too, so that interpolation says nothing), motion mixes its k-space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from qcnode.artifacts import Artifact, Severity
from train.sampling import motion
from train.sampling.variation import Half, Image, widened
from train.simulation import deformation, draws, physics, shading
from train.simulation.draws import Triple
from train.simulation.severity import BAND_DEPTH, SHADING_RATIO, OutOfContract

# In the order of the physics. Interpolation would smooth noise, shading would change a line's height, and lines do not
# move with a head: those three are redrawn only on scans without noise and lines, so that the other labels stay true.
REDRAWN = (Artifact.DISTORTION, Artifact.CONTRAST, Artifact.MOTION, Artifact.BANDING)
_SPOILT = {
    Artifact.DISTORTION: frozenset({Artifact.NOISE, Artifact.ZIPPER}),
    Artifact.CONTRAST: frozenset({Artifact.NOISE, Artifact.ZIPPER}),
    Artifact.MOTION: frozenset({Artifact.NOISE, Artifact.ZIPPER}),
    Artifact.BANDING: frozenset[Artifact](),
}
# What is measured where there is nothing of an artifact. Other scans of severity 0 have a little of it, which would add
# to what is drawn: of those that were measured only bare ones are drawn on.
_BARE = {
    Artifact.DISTORTION: ("displacement_mm", 0.0),
    Artifact.CONTRAST: ("shading_ratio", 1.0),
    Artifact.MOTION: ("motion_nrms", 0.0),
    Artifact.BANDING: ("band_depth", 0.0),
}
_NOTHING = 1e-3  # in these quantities
_SPACING_MM = np.array([5.0, 1.6, 1.6])  # of a network input, near enough
_STEPS = 1 << 12  # of a band's coordinate across the field of view: some .05 mm each
_TRIES = 50  # of bands that a brain would hide
_SLICES = 8  # looked up at a time: so many stay in a core's cache until the image was multiplied by them
_SEEN = (4, 8, 8)  # every so manieth voxel tells what is padding, and how tall bands are in the brain
_COARSE = (2, 6, 6)  # voxels a step of the grid on which a displacement is computed


def can_be_redrawn(artifact: Artifact, severities: Mapping[Artifact, Severity]) -> bool:
    """Whether a scan of these severities can be given the artifact without another label becoming untrue."""
    none = Severity.NONE
    return artifact in REDRAWN and all(severities[a] == none for a in {artifact, *_SPOILT[artifact]})


def is_redrawn(artifact: Artifact, severity: Severity) -> bool:
    """Whether scans of this severity are drawn anew.

    A field that multiplies leaves no trace but itself, so a scan without bands or shading stays as it is: other bands
    of severity 0 over its own could be deeper than that severity's are.
    """
    return artifact in REDRAWN and (severity > Severity.NONE or artifact in (Artifact.DISTORTION, Artifact.MOTION))


def is_bare(artifact: Artifact, measured: Mapping[str, float]) -> bool:
    """Whether there is nothing at all of the artifact in a scan, as far as was measured on it."""
    quantity, without = _BARE[artifact]
    return abs(measured.get(quantity, without) - without) < _NOTHING


def redrawable(
    labels: NDArray[np.int64], artifact: Artifact, measured: Sequence[Mapping[str, float]] = ()
) -> NDArray[np.int64]:
    """Which scans of these labels (scan, artifact) can be; any without the artifact where none can.

    measured: what was measured on each of them, if anything was.
    """
    without = labels[:, list(Artifact).index(artifact)] == Severity.NONE
    spoilt = (labels[:, [list(Artifact).index(each) for each in _SPOILT[artifact]]] > Severity.NONE).any(axis=1)
    bare = np.array([is_bare(artifact, its) for its in measured] or np.ones(len(labels), bool))
    narrowed = (without & ~spoilt & bare, without & ~spoilt, without)
    return np.flatnonzero(next(can for can in narrowed if can.any() or can is without))


def redrawn(image: Image | Half, artifact: Artifact, severity: Severity, generator: np.random.Generator) -> Image:
    """The input with this artifact drawn anew at this severity; `image` has it at severity 0. One of REDRAWN."""
    out = np.empty(image.shape, np.float32)
    widened(image, out)
    redraw(out, artifact, severity, generator)
    return out


def redraw(
    image: Image,
    artifact: Artifact,
    severity: Severity,
    generator: np.random.Generator,
    *,
    apart: int = 1,
    lies_askew: bool = True,
) -> None:
    """Draw this artifact on the input where it lies, as `redrawn` does on a copy.

    apart, lies_askew: of motion, as `motion.moved` has them. Raises OutOfContract, and leaves the input, where the scan
    cannot have it.
    """
    box = _field_of_view(image)
    if artifact is Artifact.BANDING:
        seen, depth = image[box], BAND_DEPTH[severity].drawn(generator)
        for slices, field in _banding(*_seen_bands(seen, generator), depth, seen):
            seen[slices] *= field
    elif artifact is Artifact.CONTRAST:
        ratio = SHADING_RATIO[severity].drawn(generator)
        if severity:
            pattern = shading.smooth(image[box].shape, generator.standard_normal((3, 4, 4)))
            image[box] *= physics.shading(pattern, _head(image)[box], ratio)
    elif artifact is Artifact.MOTION:
        brain = _brain(image)[box]
        image[box] = motion.moved(image[box].copy(), brain, severity, generator, apart=apart, lies_askew=lies_askew)
    else:
        drawn = draws.draw(generator, dict.fromkeys(Artifact, Severity.NONE) | {artifact: severity})
        image[:] = _distorted(image, drawn, _head(image) > 0, generator)


class _Bands(NamedTuple):
    """As draws.Draw has them."""

    direction: Triple
    profiles: tuple[Triple, ...]
    flat: float

    @classmethod
    def drawn(cls, generator: np.random.Generator) -> _Bands:
        return cls(draws.band_direction(generator), draws.bands(generator), draws.band_flat(generator))


def _head(image: Image) -> Image:
    """1 in the head, which is brighter than half of the foreground's mean, else 0; as seen at one voxel of 2 x 4 x 4.

    The nearest of these voxels counts, their first and last being the image's (as `scipy.ndimage.zoom` has it).
    """
    return _of_nearest((image[::2, ::4, ::4] > 0.5).astype(np.float32), image.shape)


def _brain(image: Image) -> NDArray[np.bool_]:
    """Of the head what is not its rim: as much as there is of brain, by a third more or less."""
    head = ndimage.binary_fill_holes(image[::2, ::4, ::4] > 0.5)
    inner = ndimage.binary_erosion(head, np.ones((1, 3, 3)))
    return _of_nearest((inner if inner.any() else head).astype(np.float32), image.shape) > 0


def _of_nearest(seen: Image, shape: tuple[int, ...]) -> Image:
    found = torch.from_numpy(seen)
    for axis in (2, 1, 0):  # the innermost first, while there is little of it
        coarse, fine = found.shape[axis], shape[axis]
        nearest = np.floor(np.arange(fine) * ((coarse - 1) / (fine - 1)) + 0.5).astype(np.int64)
        found = found.index_select(axis, torch.from_numpy(nearest))
    return np.asarray(found.numpy())


def _seen_bands(image: Image, generator: np.random.Generator) -> tuple[_Bands, float]:
    """Bands that the image's brain does not hide (`physics.are_seen`), and their largest height in it.

    The brain is looked for at one voxel of _SEEN. Raises OutOfContract where no bands of several are seen.
    """
    head = ndimage.binary_fill_holes(image[tuple(slice(None, None, step) for step in _SEEN)] > 0.5)
    inner = ndimage.binary_erosion(head, np.ones((1, 3, 3)))
    places = np.argwhere(inner if inner.any() else head) * _SEEN / (np.array(image.shape) - 1)
    for _ in range(_TRIES):
        bands = _Bands.drawn(generator)
        coordinates = ((places - 0.5) @ bands.direction + 0.5).astype(np.float32)
        heights = physics.bands(coordinates, bands.profiles, bands.flat)
        if physics.are_seen(heights):
            return bands, float(heights.max())
    raise OutOfContract("no band's edge crosses what is seen of the brain; take another scan")


def _banding(bands: _Bands, tallest: float, depth: float, image: Image) -> Iterator[tuple[slice, Image]]:
    """A field in which the tallest of the bands in the brain changes the image by `depth`, a few slices at a time.

    The bands are looked up among some _STEPS coordinates. A pixel is a whole number of steps along a row, so that a row
    is one piece of the bands as seen at every so manieth step.
    """
    ramps = [d * np.linspace(-0.5, 0.5, n) for n, d in zip(image.shape, bands.direction, strict=True)]
    low, high = (0.5 + sum(end(ramp) for ramp in ramps) for end in (np.min, np.max))
    step, pixel = (high - low) / _STEPS, abs(float(ramps[2][1] - ramps[2][0]))
    steps = max(1, round(pixel / step)) if pixel > step / 4 else 0  # in a pixel; without any a row is one coordinate
    step = pixel / steps if steps else step
    coordinates = low + step * np.arange((high - low) / step + 1)
    sign = 1.0 if sum(bands.direction) > 0 else -1.0
    heights = physics.bands(coordinates.astype(np.float32), bands.profiles, bands.flat)
    changes = 1 + np.float32(sign * depth / tallest) * heights

    z, y = (torch.from_numpy((ramp - ramp.min()) / step).float() for ramp in ramps[:2])
    starts, columns = (z[:, None] + y).round().int(), image.shape[2]
    if bands.direction[2] < 0:  # along a row the coordinate falls
        changes, starts = changes[::-1], len(changes) - 1 - starts - steps * (columns - 1)
    if steps:
        padded = np.pad(changes, (0, -len(changes) % steps))
        pieces = torch.from_numpy(np.ascontiguousarray(padded.reshape(-1, steps).T).ravel()).unfold(0, columns, 1)
        starts = starts % steps * (len(padded) // steps) + starts // steps
    else:
        pieces = torch.from_numpy(changes.copy())[:, None].expand(-1, columns)
    for first in range(0, len(starts), _SLICES):
        slices = slice(first, first + _SLICES)
        yield slices, pieces.index_select(0, starts[slices].ravel()).view(-1, *image.shape[1:]).numpy()


def _distorted(image: Image, drawn: draws.Draw, head: NDArray[np.bool_], generator: np.random.Generator) -> Image:
    """The image pulled along plane waves of the drawn displacement and strain."""
    centre = (np.array(image.shape) - 1) / 2
    inside = np.argwhere(head[::2, ::4, ::4]) * (2, 4, 4)
    points = (inside[generator.permutation(len(inside))[:600]] - centre) * _SPACING_MM
    largest = _largest_mm(drawn, generator)
    waves = deformation.drawn("waves", points, largest, drawn.strain, np.eye(3)[1:], generator)
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


def _largest_mm(drawn: draws.Draw, generator: np.random.Generator) -> float:
    """The displacement that was drawn; some even where none was, so that interpolation tells nothing."""
    return drawn.displacement_mm or float(generator.uniform(0.2, 1.4))


def _field_of_view(image: Image) -> tuple[slice, ...]:
    """The box that the scan fills; beyond it the input is padded with zeros, whole slices, rows and columns of them."""
    extents = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        seen = image[tuple(slice(None, None, 1 if a == axis else step) for a, step in enumerate(_SEEN))]
        extents.append(np.flatnonzero(seen.max(axis=others) > 0))
    return tuple(slice(int(e[0]), int(e[-1]) + 1) for e in extents)
