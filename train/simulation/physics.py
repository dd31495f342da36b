"""The arithmetic of each artifact, and how each is measured; all of it pure functions of arrays in scan voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Array = NDArray[np.float32]
Complex = NDArray[np.complex64]

LARGEST_BAND_COVER = 0.8  # share of the brain: a band that covers all of it cannot be seen

# Motion (the mixing of k-space lines is qcnode.imaging.phantom.mix_poses)


def nrms(image: Complex | Array, reference: Array, brain: Array) -> float:
    """Root mean square difference of the magnitudes inside the brain, relative to the reference's root mean square."""
    inside = brain > 0.5
    difference = np.abs(image[inside]) - reference[inside]
    return float(np.sqrt(np.mean(difference**2) / np.mean(reference[inside] ** 2)))


# Contrast


def contrast(signal: Array, grey: Array, white: Array) -> float:
    """Mean grey minus mean white signal, each weighted by the tissue's share of the voxel."""
    return float((signal * grey).sum() / grey.sum() - (signal * white).sum() / white.sum())


def faded(signal: Array, grey: Array, white: Array, left: float) -> Array:
    """Grey and white drawn towards their common mean until a share `left` of their contrast remains."""
    tissue = grey + white
    excess = tissue * (signal - (signal * tissue).sum() / tissue.sum())
    share = contrast(excess, grey, white) / contrast(signal, grey, white)
    return np.asarray(signal - np.float32((1 - left) / share) * excess, np.float32)


def shading(pattern: Array, brain: Array, ratio: float) -> Array:
    """A positive field as this pattern has it, whose largest value in the brain is `ratio` times its smallest."""
    inside = pattern[brain > 0.5]
    unit = np.clip((pattern - inside.min()) / np.ptp(inside), -0.3, 1.3)
    return np.asarray(np.exp(np.log(ratio) * (unit - unit[brain > 0.5].mean())), np.float32)


def shading_ratio(field: Array, brain: Array) -> float:
    """Largest over smallest value of a shading field inside the brain."""
    inside = field[brain > 0.5]
    return float(inside.max() / inside.min())


# Tone and noise


def zipper(
    shape: tuple[int, int, int],
    phase_axis: int,
    positions: Sequence[float],
    phases: NDArray[np.float64],
    slices: tuple[int, int],
) -> Complex:
    """The image of a narrow-band tone: unit amplitude (root mean square along the line) at each readout position.

    positions: readout indices, which may lie between two voxels. phases: (positions, slices, phase-encode lines), the
    tone's in radians when each line was read. slices: the affected ones, first and past-the-last.
    """
    readout_axis = 3 - phase_axis
    size = shape[readout_axis]
    image = np.zeros((shape[0], shape[phase_axis], size), np.complex64)
    for position, phase in zip(positions, phases, strict=True):
        line = fft.ifft(np.exp(1j * phase), axis=1) * np.sqrt(shape[phase_axis])
        offset = np.arange(size) - position
        spread = fft.ifft(np.exp(-2j * np.pi * np.fft.fftfreq(size) * position))  # a tone between two bins leaks
        spread = spread / np.abs(spread[np.abs(offset).argmin()])
        image += (line[:, :, None] * spread).astype(np.complex64)
    image[: slices[0]] = 0
    image[slices[1] :] = 0
    return np.asarray(image if phase_axis == 1 else image.swapaxes(1, 2))


def zipper_lines(residual: Complex, phase_axis: int, smallest: float) -> list[tuple[int, float]]:
    """Where lines are in a residual image, and their amplitudes: (readout index, root mean square along the line).

    The affected slices are found by their own energy; of neighbouring readout positions the strongest is the line.
    """
    power = np.mean(np.abs(residual) ** 2, axis=phase_axis)  # (slice, readout)
    strongest = power.max(axis=1)
    affected = strongest > 0.25 * strongest.max()
    profile = np.sqrt(power[affected].mean(axis=0)) if affected.any() else np.zeros(power.shape[1])
    peak = (profile >= smallest) & (profile == ndimage.maximum_filter1d(profile, 5))
    return [(int(index), float(profile[index])) for index in np.flatnonzero(peak)]


def complex_noise(shape: tuple[int, ...], sigma: float, generator: np.random.Generator) -> Complex:
    """White noise of standard deviation sigma in the real and in the imaginary part."""
    real, imaginary = generator.standard_normal((2, *shape), dtype=np.float32)
    return np.asarray(np.float32(sigma) * (real + 1j * imaginary), np.complex64)


def noise_sigma(noise: Complex) -> float:
    """Standard deviation of one part of complex noise."""
    return float(np.sqrt(np.mean(np.abs(noise) ** 2) / 2))


# Banding


def bands(coordinate: Array, profiles: Sequence[tuple[float, float, float]], flat: float) -> Array:
    """Broad bands of height up to 1 across a coordinate that runs from 0 to 1 over the field of view.

    profiles: (centre, width, height) of each. flat: the share of a band at its full height; beside it are cosine edges.
    """
    field = np.zeros(coordinate.shape, np.float32)
    for centre, width, height in profiles:
        distance = np.abs(coordinate - centre) / (width / 2)
        edge = np.clip((distance - flat) / (1 - flat), 0, 1)
        field = np.maximum(field, height * (0.5 + 0.5 * np.cos(np.pi * edge)))
    return field.astype(np.float32)


def are_seen(heights: NDArray[np.float32]) -> bool:
    """Whether bands of these heights at places in the brain can be seen: one is high there, and has an edge there."""
    tallest = heights.max(initial=0)
    return bool(tallest >= 0.5 and 0.1 < (heights > tallest / 2).mean() < LARGEST_BAND_COVER)


def band_depth(field: Array, brain: Array) -> float:
    """Largest relative change that a multiplicative field makes inside the brain."""
    return float(np.abs(field[brain > 0.5] - 1).max())


# Distortion


def strain(jacobian: NDArray[np.float64]) -> float:
    """Largest relative change of length in any direction, 99th percentile over the points of a Jacobian (n, 3, 3).

    Stretches are the roots of the eigenvalues of JᵀJ, which a symmetric 3 × 3 matrix has in closed form (Smith 1961,
    doi:10.1145/355578.366316): in half the time of a singular value decomposition.
    """
    square = np.einsum("nij,nik->njk", jacobian, jacobian)
    mean = np.trace(square, axis1=1, axis2=2) / 3
    away = square - mean[:, None, None] * np.eye(3)
    spread = np.sqrt(np.square(away).sum((1, 2)) / 6)
    skew = np.linalg.det(away / (spread + 1e-12)[:, None, None]) / 2
    angle = np.arccos(np.clip(skew, -1, 1)) / 3
    longest = np.sqrt(np.maximum(mean + 2 * spread * np.cos(angle), 0))
    shortest = np.sqrt(np.maximum(mean + 2 * spread * np.cos(angle + 2 * np.pi / 3), 0))
    return float(np.percentile(np.maximum(longest - 1, 1 - shortest), 99))
