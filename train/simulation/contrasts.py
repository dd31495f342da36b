"""The signal that each tissue would give at low field, drawn at random around the ordering of a weighting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.simulation.brains import GROUPS, Anatomy

WEIGHTINGS = ("T2w", "T1w", "FLAIR")
WEIGHTING_SHARES = (0.7, 0.2, 0.1)

# Tissue signals as (low, high); CSF in T2w is about 1. White is grey minus a drawn difference, so that the clean
# contrast stays in a narrow band and a loss of contrast can be told from a low native one.
_CSF = {"T2w": (0.88, 1.12), "T1w": (0.12, 0.25), "FLAIR": (0.10, 0.22)}
_GREY = {"T2w": (0.62, 0.74), "T1w": (0.46, 0.56), "FLAIR": (0.74, 0.86)}
_DIFFERENCE = {"T2w": (0.20, 0.28), "T1w": (-0.30, -0.20), "FLAIR": (0.28, 0.36)}
_PROPORTION_SPREAD = 0.04  # of the log of a head's width and height relative to its length: people differ
_INFANT_SHARE = 0.5  # of the small heads: white matter, still without myelin, is the brighter one in T2w


@dataclass(frozen=True)
class Head:
    """A head with signal, on its source's isotropic RAS grid.

    channels: (4, x, y, z) float32: signal, and the shares of brain, grey and white matter. spacing_mm: (3,), after
    scaling. centre: the brain's centre as an index.
    """

    channels: Tensor
    spacing_mm: NDArray[np.float64]
    centre: NDArray[np.float64]
    brain_points_mm: NDArray[np.float32]  # (n, 3), a sample of the brain around its centre


def brain_length_mm(anatomy: Anatomy) -> float:
    """The brain's extent from front to back."""
    along = np.flatnonzero(anatomy.brain.any(axis=(0, 2)))
    return float(along[-1] - along[0] + 1) * anatomy.spacing_mm


def head(
    anatomy: Anatomy, weighting: str, length_mm: float, generator: np.random.Generator, *, fluid: float = 1.0
) -> Head:
    """Give an anatomy a signal and a size.

    length_mm: the brain's extent from front to back. fluid: times as bright as usual is CSF, where it is the brightest.
    """
    scale = length_mm / brain_length_mm(anatomy)
    csf, grey = generator.uniform(*_CSF[weighting]), generator.uniform(*_GREY[weighting])
    csf *= fluid if weighting == "T2w" else 1.0
    white = grey - generator.uniform(*_DIFFERENCE[weighting])
    if weighting == "T2w" and length_mm < 140 and generator.random() < _INFANT_SHARE:
        grey, white = white - 0.06, grey + 0.03
    if anatomy.centres is None:
        signal = _signal_of_groups(anatomy, csf, grey, white, generator)
    else:
        signal = _signal_of_image(anatomy, csf, grey, white, scale, generator)
    texture = 1 + generator.uniform(0.01, 0.04) * smooth_field(signal.shape, 6.0, anatomy.spacing_mm, generator)
    signal *= texture
    brain_where = np.argwhere(anatomy.brain)
    signal *= _coil(signal.shape[2], int(brain_where[:, 2].min()), anatomy.spacing_mm, generator)
    channels = np.stack([signal, anatomy.brain, anatomy.tissue == 2, anatomy.tissue == 3]).astype(np.float32)
    centre = (brain_where.min(axis=0) + brain_where.max(axis=0)) / 2.0
    points = brain_where[generator.integers(len(brain_where), size=4000)] - centre
    width, height = np.exp(_PROPORTION_SPREAD * generator.standard_normal(2))
    spacing_mm = anatomy.spacing_mm * scale * np.array([width, 1.0, height])
    return Head(torch.from_numpy(channels), spacing_mm, centre, (points * spacing_mm).astype(np.float32))


def smooth_field(
    shape: tuple[int, ...], scale_mm: float, spacing_mm: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Smooth noise of unit standard deviation whose blobs are about scale_mm wide."""
    nodes = [max(2, int(n * spacing_mm / scale_mm)) for n in shape]
    coarse = torch.from_numpy(generator.standard_normal((1, 1, *nodes), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)
    return (fine[0, 0] / fine.std()).numpy()


def _signal_of_groups(
    anatomy: Anatomy, csf: float, grey: float, white: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    u = generator.uniform
    signal_of = {
        "air": u(0.0, 0.02),
        "csf": csf,
        "grey": grey,
        "white": white,
        "deep": grey + (white - grey) * u(0.1, 0.5),
        "brainstem": grey + (white - grey) * u(0.4, 0.9),
        "cerebellum": grey + (white - grey) * u(0.0, 0.3),
        "skull": u(0.05, 0.22),
        "scalp": u(0.35, 0.95),
        "muscle": u(0.2, 0.5),
        "eye": u(0.4, 1.0),
        "dura": u(0.15, 0.5),
    }
    return np.array([signal_of[group] for group in GROUPS], np.float32)[anatomy.codes]


def _signal_of_image(
    anatomy: Anatomy, csf: float, grey: float, white: float, scale: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Map the image's intensities to the drawn signals, and build skull, scalp, face and neck around the brain."""
    assert anatomy.centres is not None
    tissues = (csf, grey, white) if anatomy.source.weighting == "T1w" else (white, grey, csf)
    levels = np.arange(256.0)
    of_level = np.interp(levels, anatomy.centres, tissues)
    dark, _, bright = anatomy.centres
    gain = np.clip((bright - dark) / 200, 0.3, 1.0)  # beyond the centres: a little further, so that nothing is flat
    of_level += gain * 0.001 * np.where(levels > bright, levels - bright, 0) * np.sign(tissues[2] - tissues[1])
    inside = of_level.astype(np.float32)[anatomy.codes]
    if anatomy.outside is None:  # a phantom brings its own head
        return np.asarray(np.where(anatomy.brain, inside, anatomy.codes / np.float32(170)), np.float32)

    u = generator.uniform
    distance = anatomy.outside * np.float32(scale / 4)
    distance = distance * (1 + 0.2 * np.tanh(smooth_field(distance.shape, 60.0, anatomy.spacing_mm, generator)))
    fluid_mm, skull_mm, scalp_mm = u(1.0, 4.0), u(2.5, 8.0) * min(1.0, scale + 0.15), u(2.5, 7.0)
    ends = np.cumsum([fluid_mm, skull_mm, scalp_mm])
    shells = np.array([csf * u(0.8, 1.0), u(0.04, 0.2), u(0.35, 0.95), 0.0], np.float32)
    signal = shells[np.searchsorted(ends, distance.ravel()).reshape(distance.shape)]
    face = _face_and_neck(anatomy, generator) & (distance > ends[1])
    flesh = 1 + 0.35 * smooth_field(distance.shape, 14.0, anatomy.spacing_mm, generator)
    signal = np.where(face, np.maximum(u(0.2, 0.5) * flesh, 0.02), signal)
    return np.asarray(np.where(anatomy.brain & (anatomy.codes > 0), inside, signal), np.float32)


def _face_and_neck(anatomy: Anatomy, generator: np.random.Generator) -> NDArray[np.bool_]:
    """An ellipsoid below the forehead and a cylinder below the skull, at random proportions of the brain's extent."""
    where = np.argwhere(anatomy.brain)
    low, high = where.min(axis=0), where.max(axis=0)
    size, middle = (high - low).astype(float), (high + low) / 2.0
    x, y, z = np.ogrid[tuple(slice(0, n) for n in anatomy.codes.shape)]
    u = generator.uniform
    face_y, face_z = middle[1] + size[1] * u(0.2, 0.32), low[2] - size[2] * u(0.05, 0.25)
    face = ((x - middle[0]) / (size[0] * u(0.36, 0.44))) ** 2 + ((y - face_y) / (size[1] * u(0.26, 0.36))) ** 2
    face = face + ((z - face_z) / (size[2] * u(0.5, 0.7))) ** 2 < 1
    neck_y = middle[1] - size[1] * u(0.1, 0.22)
    across = ((x - middle[0]) / (size[0] * u(0.33, 0.42))) ** 2 + ((y - neck_y) / (size[1] * u(0.28, 0.36))) ** 2
    return np.asarray(face | ((across < 1) & (z < middle[2] - size[2] * 0.2)))


def _coil(length: int, brain_bottom: int, spacing_mm: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """The head coil's fall-off towards the neck, along z."""
    edge = brain_bottom - generator.uniform(12, 40) / spacing_mm
    width = generator.uniform(6, 14) / spacing_mm
    return np.asarray(1 / (1 + np.exp(-(np.arange(length) - edge) / width)), np.float32)
