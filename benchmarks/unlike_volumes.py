"""Volumes that are no scan of a brain: each kind drawn by two unlike generators, one to choose by, one to report by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qcnode.artifacts import Plane
from qcnode.imaging.phantom import MATRIX, grid_affine
from qcnode.imaging.volume import Volume

Field = NDArray[np.float64]
Random = np.random.Generator
Maker = Callable[[Random, Volume], Volume]  # from a clean head, which some kinds start from


class Space:
    """The scanner's grid, its voxels' places in mm: x to the right, y to the front, z up."""

    def __init__(self, rng: Random, widest: float = 1.0) -> None:
        self.plane = tuple(Plane)[rng.integers(3)]
        self.affine = grid_affine(self.plane, float(rng.uniform(1.5, 1.7)) * widest)
        index = np.indices(MATRIX[self.plane], np.float32).reshape(3, -1)
        places = self.affine[:3, :3] @ index + self.affine[:3, 3:]
        self.x, self.y, self.z = (axis.reshape(MATRIX[self.plane]) for axis in places)

    def ball(self, centre: tuple[float, ...], axes: tuple[float, ...], power: float = 2.0) -> Field:
        """1 inside a (super)ellipsoid, 0 outside; an infinite axis makes a cylinder."""
        parts = [np.abs((a - c) / r) ** power for a, c, r in zip((self.x, self.y, self.z), centre, axes, strict=True)]
        return np.asarray(sum(parts) < 1, float)

    def scan(self, rng: Random, signal: Field, noise: tuple[float, float] = (0.02, 0.1)) -> Volume:
        """The signal as a scanner shows it: blurred a little, shaded, in Rician noise, on some scale."""
        shade = np.exp(rng.normal(0, 0.1) * self.x / 60 + rng.normal(0, 0.1) * self.z / 60)
        blurred = ndimage.gaussian_filter(signal * shade, (0.2, 0.6, 0.6))
        return Volume(rician(rng, blurred, float(rng.uniform(*noise))) * scale(rng), self.affine)


def rician(rng: Random, signal: Field, sigma: float) -> NDArray[np.float32]:
    """Magnitude of the signal in complex noise."""
    real, imaginary = sigma * rng.standard_normal((2, *signal.shape))
    return np.hypot(signal + real, imaginary).astype(np.float32)


def scale(rng: Random) -> np.float32:
    """A scanner's own units."""
    return np.float32(10 ** rng.uniform(1.5, 3.5))


def like(head: Volume, array: Field) -> Volume:
    """Another array on the head's grid."""
    return Volume(np.ascontiguousarray(array, np.float32), head.affine)


def brightness(head: Volume) -> Field:
    """The head with its bright end at 1."""
    return np.asarray(head.array / np.percentile(head.array, 99), float)


# --- bodies ---


def belly(rng: Random, _: Volume) -> Volume:
    """A trunk, fat around muscle, with liver, spleen, kidneys, gut and spine; it leaves the field above and below."""
    s = Space(rng, float(rng.uniform(1.0, 2.0)))
    half = float(rng.uniform(95, 170)), float(rng.uniform(75, 120))
    out = s.ball((0, 0, 0), (*half, np.inf), float(rng.uniform(2, 3))) * rng.uniform(0.5, 1.0)
    inner = s.ball((0, 0, 0), (half[0] - rng.uniform(8, 25), half[1] - rng.uniform(8, 20), np.inf))
    out = np.where(inner > 0, rng.uniform(0.2, 0.4), out)
    for _i in range(int(rng.integers(5, 10))):
        centre = rng.uniform(-0.55, 0.55) * half[0], rng.uniform(-0.5, 0.6) * half[1], rng.uniform(-80, 80)
        organ = s.ball(centre, tuple(rng.uniform(15, 60, 3))) * inner
        out = np.where(organ > 0, rng.uniform(0.2, 1.0), out)
    spine = s.ball((0, -0.55 * half[1], 0), (18, 15, np.inf))
    discs = np.where(np.sin(s.z / rng.uniform(4, 6)) > 0.6, 0.8, 0.45)
    out = np.where(spine > 0, discs, out)
    out = np.where(s.ball((0, -0.55 * half[1] - 22, 0), (7, 6, np.inf)) > 0, 1.0, out)
    return s.scan(rng, out)


def chest_or_limbs(rng: Random, _: Volume) -> Volume:
    """A chest with dark lungs and arms beside it, or two legs, or one knee or shoulder."""
    s = Space(rng, float(rng.uniform(1.0, 1.8)))
    out = np.zeros(s.x.shape)
    which = rng.integers(3)
    if which == 0:
        width, depth = rng.uniform(80, 150), rng.uniform(60, 100)
        out = s.ball((0, 0, 0), (width, depth, np.inf)) * 0.6
        for side in (-1, 1):
            lung = s.ball((side * width * 0.48, 5, rng.uniform(-30, 30)), (width * 0.36, depth * 0.7, 110))
            out = np.where(lung > 0, 0.05, out)
            arm = s.ball((side * (width + 35), rng.uniform(-20, 20), 0), (28, 28, np.inf))
            out = np.maximum(out, arm * 0.6)
        out = np.where(s.ball((15, 15, rng.uniform(-20, 20)), (40, 35, 50)) > 0, 0.9, out)
        out = np.where(s.ball((0, -depth * 0.7, 0), (14, 14, np.inf)) > 0, 0.5, out)
    for side in {0: (), 1: (-1, 1), 2: (0,)}[int(which)]:
        radius = float(rng.uniform(35, 65))
        place = (side * (radius + rng.uniform(3, 15)), rng.uniform(-15, 15))
        taper = radius * (1 + rng.uniform(-0.3, 0.3) * s.z / 100)
        distance = np.hypot(s.x - place[0], s.y - place[1]) / np.maximum(taper, 5)
        leg = np.select([distance < 0.3, distance < 0.42, distance < 0.85, distance < 1], [0.7, 0.05, 0.35, 0.9], 0.0)
        out = np.maximum(out, leg)
    return s.scan(rng, out)


# --- phantoms ---


def bottle(rng: Random, _: Volume) -> Volume:
    """A sphere or a bottle of water, its axis along any of the scanner's."""
    s = Space(rng)
    centre = tuple(rng.uniform(-12, 12, 3))
    if rng.uniform() < 0.4:
        return s.scan(rng, s.ball(centre, (float(rng.uniform(45, 95)),) * 3))
    radius, half = float(rng.uniform(40, 85)), float(rng.uniform(60, 110))
    axes = [radius, radius, radius]
    axes[rng.integers(3)] = np.inf
    along = (s.x, s.y, s.z)[axes.index(np.inf)]
    out = s.ball(centre, tuple(axes)) * (np.abs(along) < half)
    axes = [0.4 * a for a in axes]
    return s.scan(rng, np.maximum(out, s.ball(centre, tuple(axes)) * (np.abs(along) < half + 25)))


def quality_phantom(rng: Random, _: Volume) -> Volume:
    """A cylinder or ball with a grid, rods, little balls or a wedge in it, as scanners are checked with."""
    s = Space(rng)
    radius = float(rng.uniform(65, 98))
    body = s.ball((0, 0, 0), (radius, radius, np.inf)) * (np.abs(s.z) < rng.uniform(50, 90))
    if rng.uniform() < 0.4:
        body = s.ball((0, 0, 0), (radius,) * 3)
    fill = float(rng.uniform(0.3, 1.0))
    out = body * fill
    which = rng.integers(4)
    if which == 0:
        pitch = float(rng.uniform(12, 24))
        bars = (np.abs((s.x / pitch) % 1 - 0.5) < 0.12) | (np.abs((s.y / pitch) % 1 - 0.5) < 0.12)
        out = np.where(bars & (np.abs(s.z) < rng.uniform(20, 60)) & (body > 0), 0.0, out)
    elif which == 1:
        for _i in range(int(rng.integers(6, 20))):
            x, y = rng.uniform(-0.7, 0.7, 2) * radius
            out = np.where((s.ball((x, y, 0), (9, 9, np.inf)) > 0) & (body > 0), rng.uniform(0, 1), out)
    elif which == 2:
        out = body * rng.uniform(0.0, 0.15)
        for _i in range(int(rng.integers(20, 50))):
            out = np.where(s.ball(tuple(rng.uniform(-0.62, 0.62, 3) * radius), (10, 10, 10)) > 0, 1.0, out)
    else:
        out = np.where((s.y > rng.uniform(0, 0.5) * radius) & (body > 0), 0.02, out)  # half filled: air above
    return s.scan(rng, out)


# --- noise ---


def noise(rng: Random, head: Volume) -> Volume:
    """Noise alone, shaded as a coil shades it or not."""
    shape = head.array.shape
    shade = np.ones(shape)
    for axis, n in enumerate(shape):
        middle, width = rng.uniform(-0.4, 0.4), rng.uniform(0.6, 3.0)
        curve = np.exp(-((np.linspace(-1, 1, n) - middle) ** 2) / (2 * width**2))
        shade = shade * curve.reshape([-1 if a == axis else 1 for a in range(3)])
    return like(head, rician(rng, np.zeros(shape), 1.0) * shade * scale(rng))


def interference(rng: Random, head: Volume) -> Volume:
    """Noise through a smoothing reconstruction, lines of tones in it, or a spike of k-space across it."""
    shape = head.array.shape
    real, imaginary = (
        ndimage.gaussian_filter(rng.standard_normal(shape), (0, *([rng.uniform(0.4, 1.2)] * 2))) for _ in range(2)
    )
    field = (real + 1j * imaginary) / real.std()
    for _i in range(int(rng.integers(0, 4))):
        at, axis = int(rng.integers(8, min(shape[1:]) - 8)), int(rng.integers(1, 3))
        line = [slice(None)] * 3
        line[axis] = slice(at, at + 2)
        field[tuple(line)] += rng.uniform(2, 20)
    if rng.uniform() < 0.4:
        k = rng.uniform(-0.3, 0.3, 3)
        phase = sum(2 * np.pi * f * g for f, g in zip(k, np.ogrid[tuple(map(slice, shape))], strict=True))
        field = field + rng.uniform(0.5, 4) * np.exp(1j * phase)
    return like(head, np.abs(field) * scale(rng))


# --- CT ---


def ct(rng: Random, _: Volume) -> Volume:
    """A head in Hounsfield units: skin, skull, a nearly even brain, the table below."""
    s = Space(rng)
    half = np.array([70, 88, 80]) * rng.uniform(0.7, 1.05)
    hounsfield = np.full(s.x.shape, -1000.0)
    for grow, value in ((12, 0), (6, rng.uniform(700, 1400)), (0, 34)):
        hounsfield = np.where(s.ball((0, 0, 10), tuple(half + grow)) > 0, value, hounsfield)
    for side in (-1, 1):
        hounsfield = np.where(s.ball((side * 12, 5, 15), (8, 30, 14)) > 0, 8, hounsfield)
    hounsfield = np.where(np.abs(s.y + half[1] + 25 - 0.002 * s.x**2) < 4, rng.uniform(-200, 200), hounsfield)
    hounsfield = ndimage.gaussian_filter(hounsfield, (0.2, 0.5, 0.5)) + rng.normal(0, rng.uniform(3, 12), s.x.shape)
    return Volume(np.maximum(hounsfield, -1024).astype(np.float32), s.affine)


def ct_stored(rng: Random, head: Volume) -> Volume:
    """A head that has the shape of a real one, as a CT stores it (from 0), or in a window."""
    bright = ndimage.gaussian_filter(brightness(head), (0.3, 1, 1))
    inside = ndimage.binary_fill_holes(ndimage.binary_opening(bright > 0.22, iterations=2))
    depth = ndimage.distance_transform_edt(inside, sampling=head.spacing_mm)
    brain = 34 + 6 * np.clip(brightness(head) - 0.5, -1, 1)
    values = np.select(
        [depth <= 0, depth < 5, depth < 5 + rng.uniform(5, 9)], [-1000, 20, rng.uniform(700, 1500)], brain
    )
    values = ndimage.gaussian_filter(values, (0.2, 0.5, 0.5)) + rng.normal(0, rng.uniform(3, 15), values.shape)
    if rng.uniform() < 0.5:
        return like(head, np.maximum(values + 1024, 0))
    low, high = (-20, 100) if rng.uniform() < 0.5 else (-1000, 1000)
    return like(head, np.clip((values - low) / (high - low), 0, 1) * 255)


# --- other contrasts ---


def inverted_or_angiography(rng: Random, head: Volume) -> Volume:
    """Black for white, or vessels that shine in suppressed tissue."""
    bright = brightness(head)
    if rng.uniform() < 0.5:
        return like(head, np.clip(rng.uniform(1.0, 1.3) - bright, 0, None) * scale(rng))
    vessels = np.zeros(bright.shape)
    shape = np.array(bright.shape)
    for _i in range(int(rng.integers(8, 25))):
        place, step = shape * rng.uniform(0.25, 0.75, 3), rng.normal(size=3)
        for _j in range(120):
            step = step + 0.4 * rng.normal(size=3)
            step = step / np.linalg.norm(step)
            place = place + step * np.array([0.3, 1, 1])
            vessels[tuple(np.clip(place.astype(int), 0, shape - 1))] = 1
    vessels = np.minimum(4 * ndimage.gaussian_filter(vessels, (0.4, 0.9, 0.9)), 1)
    return like(head, (rng.uniform(0.1, 0.35) * np.minimum(bright, 1) + vessels) * scale(rng))


def diffusion_or_phase(rng: Random, head: Volume) -> Volume:
    """An echo-planar diffusion image, or a map of diffusion, of phase, or of the field."""
    bright = brightness(head)
    smooth = ndimage.gaussian_filter(bright, (0.3, 1.2, 1.2))
    inside = ndimage.binary_fill_holes(ndimage.binary_opening(smooth > 0.25, iterations=2))
    depth = ndimage.distance_transform_edt(inside, sampling=head.spacing_mm)
    brain = ndimage.gaussian_filter((depth > 14).astype(float), (0.3, 1, 1))
    which = rng.integers(3)
    if which == 0:  # fluid is dark, fat is suppressed, the readout's ghost lies half a field away
        image = brain * np.clip(1.3 - smooth, 0.05, 1)
        image = image + rng.uniform(0.03, 0.12) * np.roll(image, bright.shape[1] // 2, axis=1)
        return like(head, rician(rng, ndimage.gaussian_filter(image, (0, 1, 1)), rng.uniform(0.02, 0.06)) * scale(rng))
    if which == 1:  # the apparent diffusion coefficient: what divides noise by noise is noise outside
        adc = np.where(inside, 0.8 + 2.2 * np.clip(smooth - 0.6, 0, 1), rng.uniform(0, 4, bright.shape))
        return like(head, adc * 1000)
    slope = rng.normal(0, 0.06, 3)
    field = sum(f * g for f, g in zip(slope, np.ogrid[tuple(map(slice, bright.shape))], strict=True))
    field = np.where(inside, field + 0.3 * smooth, rng.uniform(-np.pi, np.pi, bright.shape))
    phase = (field + np.pi) % (2 * np.pi) - np.pi
    return like(head, (phase + (np.pi if rng.uniform() < 0.5 else 0)) * 651.9)


# --- cut and empty ---


def half_a_head(rng: Random, head: Volume) -> Volume:
    """A head of which a third to a half lies in the field of view, cut along any axis; the rest is air."""
    axis = int(rng.integers(3))
    array, n = head.array, head.array.shape[axis]
    inside = np.flatnonzero(np.moveaxis(brightness(head) > 0.3, axis, 0).mean(axis=(1, 2)) > 0.05)
    place = int(inside[0] + rng.uniform(0.5, 0.67) * (inside[-1] - inside[0]))
    moved = rician(rng, np.zeros(array.shape), float(np.percentile(array, 5)) / 1.2)
    to: list[slice] = [slice(None)] * 3
    of: list[slice] = [slice(None)] * 3
    to[axis], of[axis] = slice(0, n - place), slice(place, n)
    moved[tuple(to)] = array[tuple(of)]
    return like(head, moved)


def slab(rng: Random, head: Volume) -> Volume:
    """Few slices of a head, or few rows or columns, cut out or zeroed outside them."""
    axis = int(rng.integers(3))
    n = head.array.shape[axis]
    size = int(n * rng.uniform(0.15, 0.34)) if axis else int(rng.integers(6, 13))
    start = int(rng.integers(n // 4, max(3 * n // 4 - size, n // 4 + 1)))
    kept: list[slice] = [slice(None)] * 3
    kept[axis] = slice(start, start + size)
    if rng.uniform() < 0.5:
        array = np.zeros_like(head.array)
        array[tuple(kept)] = head.array[tuple(kept)]
        return like(head, array)
    affine = head.affine.copy()
    affine[:3, 3] += start * affine[:3, axis]
    return Volume(np.ascontiguousarray(head.array[tuple(kept)]), affine)


def blank(rng: Random, head: Volume) -> Volume:
    """No signal at all, the same everywhere, or but a few counts of the converter's."""
    shape = head.array.shape
    which = rng.integers(4)
    if which == 0:
        return like(head, np.full(shape, float(rng.integers(0, 500))))
    if which == 1:
        return like(head, rng.integers(0, 3, shape).astype(float))
    if which == 2:
        return like(head, np.linspace(0, 1, shape[2]) * np.ones(shape) * 100)
    spot = np.zeros(shape)
    spot[tuple(int(n * rng.uniform(0.2, 0.8)) for n in shape)] = 1
    return like(head, 1000 * spot)


def lost_slices(rng: Random, head: Volume) -> Volume:
    """Slices within the head that hold nothing: zero, constant or noise."""
    array = head.array.copy()
    n = len(array)
    count = int(rng.integers(2, n // 2))
    lost = (
        rng.permutation(np.arange(n // 4, n - n // 4))[:count]
        if rng.uniform() < 0.5
        else np.arange((first := int(rng.integers(n // 4, n // 2))), min(first + count, n))
    )
    air = float(np.percentile(array, 5))
    filling = rng.integers(3)
    for k in lost:
        array[k] = (0.0, air, 0.0)[filling] if filling < 2 else rician(rng, np.zeros(array[k].shape), air / 1.2)
    return like(head, array)


# Kind → the generator to choose thresholds by, and the one to report by.
KINDS: dict[str, tuple[Maker, Maker]] = {
    "body": (belly, chest_or_limbs),
    "phantom": (bottle, quality_phantom),
    "noise": (noise, interference),
    "CT": (ct, ct_stored),
    "contrast": (inverted_or_angiography, diffusion_or_phase),
    "cut": (half_a_head, slab),
    "empty": (blank, lost_slices),
}
