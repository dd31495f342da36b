"""A synthetic head: one drawn anatomy, as the T2w signal and the brain mask that any scan can be rendered from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float32]
Sizes = Sequence[float] | NDArray[np.float64]  # along x, y, z, in mm

GRID_MM = 1.6  # the anatomy's own isotropic grid


@dataclass(frozen=True)
class Anatomy:
    """One head on an isotropic RAS grid, free of noise.

    signal: (x, y, z) float32, CSF about 1, air about 0. brain: the same grid, the share of each voxel inside the pia.
    affine: (4, 4), from (x, y, z) indices to RAS mm; the origin is the cerebrum's centre.
    """

    signal: Field
    brain: Field
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class _Tissue:
    """T2w signal of each tissue, relative to CSF."""

    csf: float
    grey: float
    white: float
    fat: float
    muscle: float
    bone: float


def draw_anatomy(generator: np.random.Generator, maturity: float | None = None) -> Anatomy:
    """A head of any age: `maturity` 0 is a newborn (small, watery white matter), 1 an adult; None draws it."""
    age = float(generator.uniform()) if maturity is None else maturity
    tissue = _draw_tissue(generator, age)
    # Half axes of the pia (x, y, z): 49 × 60 × 45 mm in a newborn, 70 × 87 × 66 mm in an adult, and each person's own.
    half = (0.70 + 0.30 * age**0.6) * np.array([70.0, 87.0, 66.0]) * generator.uniform(0.95, 1.05, 3)
    gap = float(generator.uniform(1.5, 3.0)) * (1.3 - 0.3 * age)  # CSF between pia and bone
    bone = float(generator.uniform(3.0, 6.0)) * (0.55 + 0.45 * age)
    scalp = float(generator.uniform(4.0, 7.0)) * (0.8 + 0.2 * age)
    grid = _Grid(half, gap + bone + scalp)

    swell = 0.022 * float(half.mean()) * grid.noise(generator, 80.0)  # no head is an ellipsoid
    dome = grid.ellipsoid((0, 0, 0), half) + swell
    cerebrum = _smooth_max(dome, grid.floor(half, generator), 8.0)
    cerebellum = grid.ellipsoid((0, -0.52 * half[1], -0.66 * half[2]), (0.66, 0.38, 0.36) * half)
    stem = _smooth_max(grid.rod(-0.24 * half[1], 0.15 * half[0]), grid.z + 0.15 * half[2], 3.0)
    pia = np.minimum(_smooth_min(cerebrum, cerebellum, 2.0), stem)

    skull_inside = _smooth_min(cerebrum, cerebellum, 14.0) - gap
    signal = _head_outside_brain(grid, generator, tissue, half, dome, skull_inside, (gap, bone, scalp))
    signal = _blend(signal, tissue.csf, np.minimum(skull_inside, stem - 2.5))

    sulci = _sulci(grid, generator, half, dome, age)
    cortex = np.maximum(cerebrum, -sulci)  # the cerebrum's surface, sulci cut in
    thickness = 2.6 + 0.5 * age
    signal = _blend(signal, tissue.grey, cortex)
    signal = _blend(signal, tissue.white, cortex + thickness)
    folia = np.sin((grid.z + 0.35 * grid.y + 4.0 * grid.noise(generator, 30.0)) * (2 * np.pi / 8.0)) * 2.0
    signal = _blend(signal, tissue.grey, cerebellum)
    signal = _blend(signal, tissue.white, cerebellum + 6.5 + folia)
    signal = _blend(signal, 0.5 * (tissue.white + tissue.grey), stem)
    signal = _deep_structures(signal, grid, generator, tissue, half)

    texture = 1.0 + 0.05 * grid.noise(generator, 5.0) + 0.05 * grid.noise(generator, 25.0)
    shading = np.exp(0.07 * grid.noise(generator, 90.0))  # far inside level 0 of Contrast
    brain = np.maximum(pia, -grid.z - np.float32(1.1 * half[2]))  # the cord below is not brain
    return Anatomy((signal * texture * shading).astype(np.float32), _inside(brain), grid.affine)


def _draw_tissue(generator: np.random.Generator, age: float) -> _Tissue:
    jitter = generator.normal(1.0, 0.05, 6)
    # Before myelination white matter holds more water than grey: brighter on T2w; the two cross near one year.
    white = np.interp(age, [0.0, 0.3, 0.5, 1.0], [0.76, 0.58, 0.46, 0.42])
    grey = np.interp(age, [0.0, 0.3, 1.0], [0.58, 0.66, 0.62])
    return _Tissue(*(np.array([1.0, grey, white, 0.62, 0.30, 0.06]) * jitter).tolist())


def _head_outside_brain(
    grid: _Grid,
    generator: np.random.Generator,
    tissue: _Tissue,
    half: NDArray[np.float64],
    dome: Field,
    skull_inside: Field,
    layers: tuple[float, float, float],
) -> Field:
    """Scalp, skull, face, neck and eyes around an empty braincase."""
    gap, bone, scalp = layers
    skull = skull_inside - bone
    face = grid.ellipsoid((0, 0.45 * half[1], -0.95 * half[2]), (0.72, 0.56, 1.00) * half)
    neck = grid.rod(-0.30 * half[1], 0.68 * half[0])
    neck = _smooth_max(neck, grid.z + 0.6 * half[2], 10.0)
    cranium = np.minimum(dome - gap, skull_inside) - bone - scalp
    skin = _smooth_min(_smooth_min(cranium, face - 4.0, 12.0), neck, 14.0)

    mottled = 1.0 + 0.25 * grid.noise(generator, 12.0)
    signal = _blend(grid.zeros(), tissue.fat, skin)
    deep = np.minimum(np.minimum(face + 4.0, neck + 6.0), cranium + scalp)
    signal = _blend(signal, (tissue.muscle * mottled).astype(np.float32), deep)
    signal = _blend(signal, tissue.bone, skull)
    marrow = np.maximum(skull + 0.35 * bone, -(skull + 0.65 * bone))
    signal = _blend(signal, 0.30 * tissue.fat, marrow)
    airway = grid.ellipsoid((0, 0.62 * half[1], -1.00 * half[2]), (0.16, 0.40, 0.36) * half)
    signal = _blend(signal, 0.02, np.maximum(airway + 2.0 * grid.noise(generator, 10.0), -skull))
    eye = float(np.clip(0.165 * half[0], 8.5, 11.5))
    for side in (-1, 1):
        ball = grid.ellipsoid((side * 0.47 * half[0], 0.92 * half[1], -0.52 * half[2]), (eye, eye, eye))
        signal = _blend(signal, 0.92 * tissue.csf, ball)
    return signal


def _sulci(grid: _Grid, generator: np.random.Generator, half: NDArray[np.float64], dome: Field, age: float) -> Field:
    """Signed distance, mm, into the fluid of sulci and fissures; below 0 inside it."""
    folds = grid.radial_noise(generator, half, 17.0 - 3.0 * age)
    depth = -dome
    sheet = np.abs(folds) * 3.6 - (0.35 + 0.45 * age)  # about mm from the sheets where the field changes sign
    reach = generator.uniform(12.0, 17.0) * (0.6 + 0.4 * age) * (1.0 + 0.35 * grid.noise(generator, 30.0))
    sulci = np.maximum(sheet + 0.06 * np.maximum(depth, 0), (depth - reach) * 0.5)
    bend = 1.5 * grid.noise(generator, 40.0)
    callosum = np.hypot(grid.y / np.float32(0.62 * half[1]), np.maximum(grid.z, 0) / np.float32(0.30 * half[2]))
    fissure = np.maximum(np.abs(grid.x + bend) - 1.3, (1 - callosum) * np.float32(0.30 * half[2]))
    sylvian = np.maximum(
        np.abs(grid.z + 0.12 * half[2] - 0.25 * grid.y - 2.0 * grid.noise(generator, 25.0)) - 1.6,
        np.maximum(0.60 * half[0] - np.abs(grid.x), np.abs(grid.y - 0.1 * half[1]) - 0.42 * half[1]),
    )
    fluid: Field = np.minimum(np.minimum(sulci, sylvian), fissure).astype(np.float32)
    return fluid


def _deep_structures(
    signal: Field, grid: _Grid, generator: np.random.Generator, tissue: _Tissue, half: NDArray[np.float64]
) -> Field:
    """Thalami, basal ganglia and the four ventricles."""
    size = float(generator.uniform(0.75, 1.35))
    for side in (-1, 1):
        x = side * half[0]
        for centre, axes in (
            ((0.16 * x, -0.12 * half[1], 0.02 * half[2]), (0.14, 0.17, 0.16)),  # thalamus
            ((0.36 * x, 0.10 * half[1], 0.00), (0.10, 0.21, 0.20)),  # putamen, pallidum
            ((0.22 * x, 0.28 * half[1], 0.12 * half[2]), (0.09, 0.14, 0.16)),  # head of the caudate
        ):
            nucleus = grid.ellipsoid(centre, np.array(axes) * half)
            signal = _blend(signal, 0.92 * tissue.grey, nucleus)
        wobble = 1.0 * grid.noise(generator, 20.0)
        horns = (
            ((0.13 * x, 0.22 * half[1], 0.16 * half[2]), (0.075 * size, 0.22, 0.13 * size)),  # frontal
            ((0.15 * x, -0.10 * half[1], 0.27 * half[2]), (0.085 * size, 0.32, 0.10 * size)),  # body
            ((0.30 * x, -0.40 * half[1], 0.10 * half[2]), (0.100 * size, 0.20, 0.13 * size)),  # atrium, occipital
            ((0.42 * x, -0.12 * half[1], -0.25 * half[2]), (0.050 * size, 0.20, 0.07 * size)),  # temporal
        )
        lateral = np.minimum.reduce([grid.ellipsoid(centre, np.array(axes) * half) for centre, axes in horns])
        signal = _blend(signal, tissue.csf, lateral + wobble)
    for centre, axes in (
        ((0.0, -0.08 * half[1], 0.02 * half[2]), (0.025 * size, 0.20, 0.18)),  # third
        ((0.0, -0.36 * half[1], -0.50 * half[2]), (0.11 * size, 0.06 * size, 0.14)),  # fourth
        ((0.0, 0.20 * half[1], -0.42 * half[2]), (0.20, 0.12, 0.12)),  # suprasellar cistern
    ):
        signal = _blend(signal, tissue.csf, grid.ellipsoid(centre, np.array(axes) * half))
    return signal


class _Grid:
    """Open RAS axes around one head, and the distance fields and smooth noise drawn on them."""

    def __init__(self, half: NDArray[np.float64], shell_mm: float) -> None:
        upper = half + shell_mm + 10.0
        lower = np.array([upper[0], upper[1], max(1.75 * half[2] + 10.0, 118.0)])  # the neck leaves the field of view
        upper[1] += 0.14 * half[1]  # the nose
        counts = np.ceil((upper + lower) / GRID_MM).astype(int)
        self.shape = (int(counts[0]), int(counts[1]), int(counts[2]))
        axes = [
            np.float32(-low) + np.float32(GRID_MM) * np.arange(n, dtype=np.float32)
            for low, n in zip(lower, counts, strict=True)
        ]
        self.x, self.y, self.z = np.ix_(*axes)
        self.affine = np.diag([GRID_MM, GRID_MM, GRID_MM, 1.0])
        self.affine[:3, 3] = -lower

    def zeros(self) -> Field:
        return np.zeros(self.shape, np.float32)

    def ellipsoid(self, centre: Sizes, axes: Sizes) -> Field:
        """Distance, mm, to an ellipsoid's surface, below 0 inside; first order, exact on the surface."""
        parts = [
            ((a - np.float32(c)) / np.float32(r)) ** 2
            for a, c, r in zip((self.x, self.y, self.z), centre, axes, strict=True)
        ]
        radius = np.sqrt(parts[0] + parts[1] + parts[2])
        slope = np.sqrt(sum(p / np.float32(r) ** 2 for p, r in zip(parts, axes, strict=True)))
        centre_distance = np.float32(min(axes))
        distance: Field = radius * (radius - 1) / np.maximum(slope, radius / (4 * centre_distance) + 1e-6)
        return distance

    def rod(self, y: float, radius: float) -> Field:
        """Distance, mm, to a vertical cylinder at (0, y)."""
        return np.sqrt(self.x**2 + (self.y - np.float32(y)) ** 2) - np.float32(radius) + 0 * self.z

    def floor(self, half: NDArray[np.float64], generator: np.random.Generator) -> Field:
        """Distance, mm, to the base of the cerebrum: higher in front and behind than at the temporal lobes."""
        temporal = np.float32(0.16 * half[2]) * np.cos(
            np.clip((np.abs(self.x) - 0.55 * half[0]) / (0.5 * half[0]), -3, 3)
        )
        level = 0.42 * half[2] + float(generator.uniform(-2, 2))
        occipital = np.clip(-self.y / np.float32(half[1]), 0, 1) * np.float32(0.28 * half[2])
        frontal = np.clip(self.y / np.float32(half[1]) - 0.35, 0, 1) * np.float32(0.30 * half[2])
        base: Field = -self.z - np.float32(level) - temporal + occipital + frontal
        return base.astype(np.float32)

    def noise(self, generator: np.random.Generator, wavelength_mm: float) -> Field:
        """A smooth random field of unit variance whose ripples are about `wavelength_mm` wide."""
        step = wavelength_mm / 2.5
        kernels = []
        for n in self.shape:
            knots = np.arange(int(n * GRID_MM / step) + 4, dtype=np.float32) - np.float32(generator.uniform(1, 2))
            place = np.arange(n, dtype=np.float32)[:, None] * np.float32(GRID_MM / step)
            kernels.append(np.exp(-((place - knots) ** 2) / np.float32(0.8)))
        field = generator.standard_normal([k.shape[1] for k in kernels]).astype(np.float32)
        for kernel in reversed(kernels):  # z, y, x: each product takes the last axis and puts it first
            field = np.tensordot(kernel, field, (1, 2))
        return field / np.float32(max(float(field[::3, ::3, ::3].std()), 1e-6))

    def radial_noise(self, generator: np.random.Generator, half: NDArray[np.float64], wavelength_mm: float) -> Field:
        """Smooth noise that changes along the surface three times as fast as with depth: what folds follow."""
        coarse_shape = [int(2.6 * float(r) / (wavelength_mm / 2.5)) + 6 for r in half]
        coarse = ndimage.spline_filter(generator.standard_normal(coarse_shape).astype(np.float32), output=np.float32)
        radius = np.sqrt(sum((a / np.float32(r)) ** 2 for a, r in zip((self.x, self.y, self.z), half, strict=True)))
        pull = np.maximum(radius, 0.25) ** np.float32(-0.65)
        points = [
            a * pull * np.float32(2.5 / wavelength_mm) + np.float32(n / 2)
            for a, n in zip((self.x, self.y, self.z), coarse_shape, strict=True)
        ]
        field: Field = ndimage.map_coordinates(
            coarse, points, order=3, mode="mirror", prefilter=False, output=np.float32
        )
        return field / np.float32(max(float(field[::3, ::3, ::3].std()), 1e-6))


def _inside(distance: NDArray[np.floating[Any]]) -> Field:
    """The share of a voxel inside a surface, a linear ramp one voxel wide."""
    share: Field = np.clip(0.5 - distance / GRID_MM, 0, 1).astype(np.float32)
    return share


def _blend(signal: Field, value: float | Field, distance: NDArray[np.floating[Any]]) -> Field:
    share = _inside(distance)
    mixed: Field = signal + (np.asarray(value, np.float32) - signal) * share
    return mixed


def _smooth_min(a: Field, b: Field, width: float) -> Field:
    """The union of two shapes, its crease rounded over `width` mm (the polynomial smooth minimum)."""
    blend = np.clip(np.float32(0.5) + (b - a) / np.float32(2 * width), 0, 1)
    union: Field = b + (a - b) * blend - np.float32(width) * blend * (1 - blend)
    return union


def _smooth_max(a: Field, b: Field, width: float) -> Field:
    """The intersection of two shapes, its edge rounded over `width` mm."""
    return -_smooth_min(-a, -b, width)
