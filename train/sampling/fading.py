"""Contrast drawn anew on a scan whose tissues and shading are known, so that no epoch sees the same ones twice.

Its own shading is divided out, grey and white matter are drawn together, another shading is laid on it. All that
changes its noise as well, which would give it away: so noise is added until it is even again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from qcnode.artifacts import Artifact, Severity
from qcnode.ensemble.tissue import REGION, every_third
from qcnode.imaging.preprocess import INTENSITY_RANGE
from train.simulation import physics, shading
from train.simulation.draws import SHADING_SHARES
from train.simulation.severity import CONTRAST_LEFT, SHADING_RATIO, Interval

Image = NDArray[np.float32]
_KEPT = Interval(0.88, 1.0)  # of the contrast where none is lost
# At 0.055 T grey and white matter differ by .11 to .18 in FLAIR (docs/experiments.md), not by .22 to .36 as `simulate`
# has it: of such scans so many are made paler first, to this share, and none of that is called lost.
_PALE_SHARE, _PALE = 0.6, Interval(0.35, 1.0)
# Deviations of the noise, relative to the brain's mean, and shares of the scans: to be graded none, moderate, severe.
_NOISES, _NOISE_SHARES = (Interval(0.0, 0.06), Interval(0.06, 0.13), Interval(0.18, 0.30)), (0.65, 0.25, 0.1)
# Motion and bands are of the scan as it was; noise is only made stronger.
_SPOILING = (Artifact.NOISE, Artifact.MOTION, Artifact.BANDING, Artifact.CONTRAST)
_DARKEST = 1e-3  # of a shading; beyond the last slice it is zero
_SEEN = (slice(None, None, 2), slice(None, None, 4), slice(None, None, 4))  # tells how bright the foreground is


class Plain(NamedTuple):
    """A network input without its shading. image, tissue: (slice, row, column); tissue: share of grey and white matter.

    figures: (3,), what `_figures` says of it.
    """

    image: NDArray[np.float16]
    tissue: NDArray[np.float16]
    figures: NDArray[np.float32]


class Tissues(NamedTuple):
    """Of one scan, mapped from the cache. maps: as `train.sampling.truth.widened` reads them.

    plain: where Contrast can be drawn anew on the scan.
    """

    maps: NDArray[np.int8]
    plain: Plain | None


class Anew(NamedTuple):
    """image: (slice, row, column). shading: its logarithm by regions, (slice, …). measured: as `simulate` names it."""

    image: Image
    shading: Image
    measured: dict[str, float]


def can_be_plain(labels: NDArray[np.int64]) -> bool:
    """Whether a scan of these severities (artifact,) shows nothing that another contrast would make untrue."""
    return not any(labels[list(Artifact).index(artifact)] for artifact in _SPOILING)


def plain_of(image: Image, maps: Image) -> Plain:
    """The network input without its shading, by what it was made with.

    maps: brain, grey and white matter's shares, and the logarithm of the shading, of each voxel.
    """
    brain, grey, white, its_shading = maps
    bare = image / np.exp(its_shading)
    return Plain(bare.astype(np.float16), (grey + white).astype(np.float16), _figures(bare, brain, grey, white))


def _figures(image: Image, brain: Image, grey: Image, white: Image) -> NDArray[np.float32]:
    """The mean of grey and white matter; what of their contrast an excess over it has; the brain's mean."""
    tissue = grey + white
    mean = float((image * tissue).sum() / tissue.sum())
    share = physics.contrast(tissue * (image - mean), grey, white) / physics.contrast(image, grey, white)
    return np.array([mean, share, image[brain > 0.5].mean()], np.float32)


def drawn_anew(
    plain: Plain,
    brain: Image,
    measured: Mapping[str, float],
    severity: Severity,
    generator: np.random.Generator,
    first: int | None = None,
) -> Anew:
    """The scan with Contrast drawn at this severity, as `train.simulation.draws` does: faded or shaded.

    brain: its share of each region (slice, …). measured: on the scan as it was. first: of every APARTth slice, of which
    alone the image and the shading are; None: of all.
    """

    def wanted(maps: NDArray[Any]) -> NDArray[Any]:
        return maps if first is None else every_third(maps, first)

    mean, share, of_brain = (float(figure) for figure in plain.figures)
    fades = generator.random() < 0.5
    left = (CONTRAST_LEFT[severity] if fades and severity else _KEPT).drawn(generator)
    if measured.get("is_flair") and generator.random() < _PALE_SHARE:
        left *= _PALE.drawn(generator)
    ratio = SHADING_RATIO[Severity.NONE if fades else severity].drawn(generator)
    kind = generator.choice(list(SHADING_SHARES), p=list(SHADING_SHARES.values()))
    field = wanted(physics.shading(shading.drawn(kind, brain, generator), brain, ratio))

    bare = wanted(plain.image).astype(np.float32)
    # What `physics.faded` leaves of an excess over the mean, at every voxel.
    kept = 1 - np.float32((1 - left / measured["contrast_left"]) / share) * wanted(plain.tissue).astype(np.float32)
    shaded = _of_regions(field)
    image = np.maximum(mean + kept * (bare - mean), 0)
    noise = np.float32(measured["noise_sigma"] * of_brain) * np.maximum(kept, 0) * shaded
    # Noise beside its own, so that there is as much everywhere, or a little more.
    level = max(float(np.quantile(noise[_SEEN], 0.99)), of_brain * _noise_level(generator))
    image = _with_noise(image * shaded, np.sqrt(np.maximum(np.float32(level**2) - noise**2, 0)), generator)
    image[bare == 0] = 0  # beyond the field of view
    foreground = bare[_SEEN] > 0.5
    image *= np.float32(bare[_SEEN][foreground].mean() / max(image[_SEEN][foreground].mean(), 1e-3))
    clean = abs(measured["clean_contrast"])
    return Anew(
        np.clip(image, *INTENSITY_RANGE),
        np.log(np.maximum(field, _DARKEST)),
        {"contrast_seen": clean * left, "shading_ratio": ratio},
    )


def _noise_level(generator: np.random.Generator) -> float:
    """The deviation of a finished scan's noise, relative to the brain's mean: mostly none to be graded."""
    return _NOISES[generator.choice(len(_NOISES), p=_NOISE_SHARES)].drawn(generator)


def _with_noise(image: Image, sigma: Image | np.float32, generator: np.random.Generator) -> Image:
    """The magnitude of the image with complex noise of this deviation."""
    seeded = torch.Generator().manual_seed(int(generator.integers(2**62)))
    real, imaginary = torch.randn((2, *image.shape), generator=seeded).numpy()
    return np.asarray(np.hypot(image + sigma * real, sigma * imaginary), np.float32)


def _of_regions(field: Image) -> Image:
    """(slice, row, column) of regions → of voxels, between the regions' centres linearly."""
    regions = torch.from_numpy(np.ascontiguousarray(field, np.float32))[:, None]
    voxels: Image = F.interpolate(regions, scale_factor=REGION, mode="bilinear", align_corners=False)[:, 0].numpy()
    return voxels
