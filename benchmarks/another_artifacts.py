"""Artifacts of the second simulator, each by its own physics, and refused where it measures outside its interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from another_heads import COARSE, COARSE_MM, Array, Grid, Head, Pose, Rng
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation


class OutsideIntervalError(Exception):
    """The drawn scan does not measure as its label says."""


def between(value: float | np.floating[Any], low: float, high: float, what: str) -> float:
    """The value, where it lies in the interval."""
    if not low <= value <= high:
        raise OutsideIntervalError(f"{what} {value:.3f}")
    return round(float(value), 4)


def draw_pose(severity: int, head: Head, grid: Grid, scale: float, rng: Rng) -> tuple[Pose, dict[str, Any]]:
    """A pose of this severity of Positioning, and how it is."""
    angles, shift = rng.uniform(-3, 3, 3), rng.uniform(-3, 3, 3)
    axis, sign = int(rng.integers(3)), rng.choice([-1.0, 1.0])
    way = "upright" if severity == 0 else str(rng.choice(["tilt", "offset" if severity == 1 else "cut"]))
    if way == "tilt":
        angles[axis] = sign * (rng.uniform(10, 18) if severity == 1 else rng.uniform(25, 40))
    elif way != "upright":
        along = grid.directions[:, axis] * sign
        shift = shift / 2 + along * (rng.uniform(11, 19) if severity == 1 else rng.uniform(20, 80))
    lying = Pose(angles, shift)
    whole = float(head.brain.sum()) * (scale / head.per_mm) ** 3
    cut = 1 - float(lying.sample(head.brain, head, grid, scale, None, 2).sum()) * 2 * np.prod(grid.mm) / whole
    tilt, offset = float(np.abs(angles).max()), float(np.linalg.norm(shift))
    if severity == 0:
        between(cut, -1, 0.002, "cut"), between(offset, 0, 6, "offset")
    elif severity == 1:
        between(cut, -1, 0.02, "cut"), between(offset, *((12, 20) if way == "offset" else (0, 6)), "offset")
    elif way == "cut":
        between(cut, 0.08, 0.4, "cut")
    turned = "slice" if abs(grid.directions[axis, 0]) > 0 else "in-plane"
    about = f"{way}, {'RAS'[axis]}" if way == "tilt" else f"{way}, {('slice', 'row', 'column')[axis]}"
    info = {
        "way": way,
        "about": about,
        "turn": turned if way == "tilt" else "-",
        "tilt": tilt,
        "offset": offset,
        "cut": cut,
    }
    return lying, info


def warp(severity: int, lying: Pose, head: Head, grid: Grid, scale: float, rng: Rng) -> tuple[Array, dict[str, Any]]:
    """A smooth deformation of this severity, (3, COARSE...) mm: where each place of the scan takes its signal from."""
    way = str(rng.choice(["all directions", "readout", "radial"]))
    places = (np.indices((COARSE + 1,) * 3) - COARSE / 2) * COARSE_MM
    length = rng.uniform(20, 50)
    if way == "radial":
        centre, ratio = rng.uniform(-25, 25, 3), rng.uniform(0.3, 1, 3)
        away = (places - centre[:, None, None, None]) * ratio[:, None, None, None]
        field = away * np.exp(-np.square(away).sum(0) / (2 * (1.2 * length) ** 2)) * rng.choice([-1, 1])
    else:
        field = np.stack(
            [ndimage.gaussian_filter(rng.standard_normal(places[0].shape), length / COARSE_MM) for _ in "xyz"]
        )
        if way == "readout":
            field = np.abs(grid.directions[:, rng.integers(1, 3)])[:, None, None, None] * field
    turn = Rotation.from_euler("xyz", lying.angles, degrees=True).as_matrix()

    def brain_at(moved: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
        back = np.einsum("ij,jabc->iabc", turn.T / scale, places + moved - lying.shift[:, None, None, None])
        index = np.einsum("ij,jabc->iabc", head.to_index[:, :3], back) + head.to_index[:, 3][:, None, None, None]
        found: Array = ndimage.map_coordinates(head.brain, index, np.float32, 1)
        return found > 0.5

    inside = brain_at(0 * places)
    # A shift or a turn of the whole brain is Positioning, and its even growth or shear another person's anatomy.
    here = np.c_[places[:, inside].T, np.ones(inside.sum())]
    affine = np.linalg.lstsq(here, field[:, inside].T, rcond=None)[0]
    field = field - np.einsum("ji,jabc->iabc", affine[:3], places) - affine[3][:, None, None, None]
    field *= (rng.uniform(5, 8) if severity == 1 else rng.uniform(11, 18)) / np.linalg.norm(
        field[:, inside], axis=0
    ).max()
    inside = brain_at(field)
    jacobian = np.stack([np.stack(np.gradient(f, COARSE_MM)) for f in field]) + np.eye(3)[:, :, None, None, None]
    stretch = np.linalg.svd(np.moveaxis(jacobian[:, :, inside], 2, 0), compute_uv=False)
    everywhere = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)))
    between(float(everywhere.min()), 0.2, 5, "determinant"), between(float(everywhere.max()), 0.2, 5, "determinant")
    most = float(np.linalg.norm(field[:, inside], axis=0).max())
    there = (5.0, 8.0, 0.15, 0.35) if severity == 1 else (11.0, 18.0, 0.4, 3.0)
    between(most, *there[:2], "displacement")
    # Either way about: lengths in the scan against the head's, and the head's against the scan's.
    strains = [float(np.quantile(np.abs(s - 1).max(1), 0.99)) for s in (stretch, 1 / stretch)]
    for strain in strains:
        between(strain, *there[2:], "strain")
    return field.astype(np.float32), {"way": way, "length": length, "mm": most, "strain": strains[1]}


def shading(low: float, high: float, way: str, grid: Grid, brain: NDArray[np.bool_], rng: Rng) -> Array:
    """A smooth receive profile whose largest value in the brain is low to high times its smallest."""
    places = np.stack(
        np.meshgrid(*((np.arange(n) - n / 2) * mm for n, mm in zip(grid.shape, grid.mm, strict=True)), indexing="ij")
    )
    towards = rng.standard_normal(3)
    towards /= np.linalg.norm(towards)
    if way == "ramp":
        raw = np.einsum("i,iabc->abc", towards, places)
    elif way == "coil at one side":
        raw = -np.log(90.0**2 + np.square(places - (towards * 130)[:, None, None, None]).sum(0))
    else:
        raw = -np.square(places - rng.uniform(-15, 15, 3)[:, None, None, None]).sum(0) * rng.choice([-1, 1])
    inside = raw[brain]
    wanted = np.log(rng.uniform(low, high))
    field: Array = np.exp(np.clip((raw - inside.mean()) / np.ptp(inside), -1.2, 1.2) * wanted).astype(np.float32)
    return field


def moved(
    severity: int, still: Array, lying: Pose, look: Callable[[Pose, int], Array], inside: NDArray[np.bool_], rng: Rng
) -> tuple[NDArray[np.complex128], dict[str, Any]]:
    """The scan while the head moves; look(pose, every): the unmoved image of a pose."""
    way, line = str(rng.choice(["abrupt", "periodic", "drift"])), int(rng.integers(1, 3))
    order = str(rng.choice(["linear", "centre out", "interleaved"]))
    n = still.shape[line]
    when = np.arange(n) / n  # of each line, from the lowest frequency up
    if order == "centre out":
        when[np.argsort(np.abs(np.arange(n) - n // 2), kind="stable")] = np.arange(n) / n
    elif order == "interleaved":
        shots = int(rng.integers(4, 13))
        when = (np.arange(n) % shots + np.arange(n) / n) / shots
    if way == "abrupt":
        jumps = np.sort(rng.uniform(0.1, 0.9, rng.integers(1, 4)))
        state = np.searchsorted(jumps, when)
        poses = rng.standard_normal((len(jumps) + 1, 6))
    else:
        course = np.sin(2 * np.pi * (rng.uniform(2, 8) * when + rng.uniform())) if way == "periodic" else when * 2 - 1
        state = np.clip(((course + 1) / 2 * 7).astype(int), 0, 6)
        poses = np.linspace(-1, 1, 7)[:, None] * rng.standard_normal(6)
    poses = poses - poses[state[n // 2]]  # unmoved is where the head lay while the centre of k-space was filled
    middle = lying
    masks = [np.fft.ifftshift(state == k) for k in range(len(poses))]
    shape = [1, 1, 1]
    shape[line] = n

    def scanned(size: float, every: int) -> NDArray[np.complex128]:
        total = 0
        for pose, mask in zip(poses, masks, strict=True):
            if mask.any():
                there = replace(middle, angles=middle.angles + size * pose[:3], shift=middle.shift + size * pose[3:])
                total = total + np.fft.fft(look(there, every), axis=line) * mask.reshape(shape)
        return np.fft.ifft(total, axis=line)

    def difference(image: Array, every: int) -> float:
        rest, kept = still[every // 2 :: every], inside[every // 2 :: every]
        return float(np.sqrt(np.square(image - rest)[kept].mean() / np.square(rest)[kept].mean()))

    target = rng.uniform(0.11, 0.16) if severity == 1 else rng.uniform(0.27, 0.43)
    size = 1.0
    for _ in range(5):
        size *= target / max(1e-3, difference(np.abs(scanned(size, 6)), 6))
        size = min(size, 25 / float(np.abs(poses).max()))
    image = scanned(size, 1)
    found = between(difference(np.abs(image), 1), *((0.10, 0.17) if severity == 1 else (0.25, 0.45)), "motion")
    info = {
        "way": way,
        "order": order,
        "line": ("row", "column")[line - 1],
        "size": size * float(np.abs(poses).max()),
        "rms": found,
    }
    return image, info


def tone(severity: int, shape: tuple[int, ...], rng: Rng) -> tuple[NDArray[np.complex128], dict[str, Any]]:
    """The image of narrow-band tones, in means of the brain, and where their lines are."""
    way, readout = str(rng.choice(["speckled", "even"])), int(rng.integers(1, 3))
    many = severity == 2 and rng.random() < 0.4
    count = int(rng.integers(3, 7) if many else rng.integers(1, 3))
    low, high = (0.16, 0.29) if severity == 1 else (0.32, 1.0) if many else (0.62, 1.18)
    n, lines, across = shape[0], shape[3 - readout], shape[readout]
    at = rng.choice(np.arange(across // 20, across - across // 20, 3), count, replace=False)
    first, length = 0, n
    if rng.random() < 0.35:
        length = int(rng.integers(n // 3, n))
        first = int(rng.integers(0, n - length + 1))
    image = np.zeros((n, lines, across), complex)
    for place in at:
        phase = rng.uniform(0, 2 * np.pi, (n, lines))
        if way == "even":
            k = np.arange(lines) - lines / 2
            phase = np.pi * k**2 / lines + rng.uniform(0, 6, (n, 1)) * 1.0
        line = np.fft.ifft(np.exp(1j * phase), axis=1)
        line *= rng.uniform(low, high) / np.sqrt(np.square(np.abs(line)).mean(1, keepdims=True))
        image[first : first + length, :, place] = line[first : first + length]
    info = {
        "way": way,
        "across": ("rows", "columns")[readout - 1],
        "at": at.tolist(),
        "slices": [first, first + length],
    }
    info |= {"lines": "3-6" if many else "1-2", "part": "all slices" if length == n else "some slices"}
    return (image if readout == 2 else image.transpose(0, 2, 1)), info


def bands(severity: int, shape: tuple[int, ...], brain: NDArray[np.bool_], rng: Rng) -> tuple[Array, dict[str, Any]]:
    """A factor for the finished image: one to four broad bands along one axis."""
    axis, way = int(rng.integers(3)), str(rng.choice(["bell", "flat", "periodic"]))
    x = (np.arange(shape[axis]) + 0.5) / shape[axis]
    count, width = int(rng.integers(1, 5)), float(rng.uniform(0.1, 0.4))
    if way == "periodic":
        count = max(2, count)
        width = 0.5 / count
        profile = np.square(np.sin(np.pi * (count * x + rng.uniform())))
    else:
        centres = np.sort(rng.uniform(0, 1, count))
        while count > 1 and np.diff(centres).min() < 1.3 * width:
            count, width = int(rng.integers(1, 5)), float(rng.uniform(0.1, 0.4))
            centres = np.sort(rng.uniform(0, 1, count))
        steep = np.abs(x[:, None] - centres) / (width / 2)
        profile = (0.5 ** (steep**2) if way == "bell" else 1 / (1 + steep**8)).max(1)
    others = tuple(a for a in range(3) if a != axis)
    share = brain.sum(others)
    there = profile[share > 0.2 * share.max()]
    between(float(there.min()), 0, 0.15, "foot of the bands")
    between(float(there.max()), 0.97, 1, "top of the bands")  # the flank of one that lies outside is a shading
    depth = rng.uniform(0.12, 0.20) if severity == 1 else rng.uniform(0.32, 0.55)
    factor = 1 - depth * profile / there.max()
    found = between(
        1 - float(factor[share > 0.2 * share.max()].min()), *((0.12, 0.2) if severity == 1 else (0.32, 0.55)), "depth"
    )
    full = np.array([1, 1, 1])
    full[axis] = shape[axis]
    info = {"way": way, "axis": ("slice", "row", "column")[axis], "count": count, "width": width, "depth": found}
    return np.clip(factor, 0.05, 1).reshape(full).astype(np.float32), info
