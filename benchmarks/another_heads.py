"""Heads of the second simulator: read, set upright, given a contrast, and seen by slices."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize
from scipy.spatial.transform import Rotation

sys.path.insert(0, str(Path(__file__).parents[1]))

from qcnode.artifacts import Plane

Array = NDArray[np.float32]
Rng = np.random.Generator
GREY = (3, 42, 8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54, 26, 58)
WHITE = (2, 41, 7, 46, 16, 28, 60, 85)
# Signal of grey, white, cerebrospinal fluid, muscle, bone, fat and skin, marrow, mucosa
SIGNALS = {"T2": (1.15, 0.8, 2.4, 0.5, 0.12, 0.9, 0.6, 1.3), "T1": (0.85, 1.1, 0.35, 0.7, 0.1, 1.6, 1.1, 0.7)}
FINE = 4  # samples through a slice
COARSE, COARSE_MM = 60, 5.0  # steps and spacing of a deformation about the field of view's centre
AXES = {
    Plane.AXIAL: ((2, 1), (1, -1), (0, -1)),
    Plane.CORONAL: ((1, -1), (2, -1), (0, -1)),
    Plane.SAGITTAL: ((0, 1), (2, -1), (1, 1)),
}


@dataclass(frozen=True)
class Head:
    """Anatomy upright in its own frame: class shares in [0, 1] or an image, the axes to right, front and top."""

    name: str
    kind: str
    grey: Array
    white: Array
    rest: dict[str, Array]
    image: Array | None  # T1-weighted or T2-weighted, the brain's mean 1; None: from the shares alone
    image_is: str
    brain: Array
    to_index: NDArray[np.float64]  # (3, 4): from mm about the brain's centre, upright, to indices
    leans: tuple[float, float, float] = (0.0, 0.0, 0.0)  # degrees by which it was turned upright

    @property
    def per_mm(self) -> float:
        """Indices in a millimetre."""
        return float(np.linalg.norm(self.to_index[:, 0]))


def read_head(path: Path, kind: str) -> Head:
    """The subject's head; one that was stripped gets fluid, skull, muscle and scalp of its own shape."""
    file = nibabel.as_closest_canonical(nibabel.load(path))
    array, mm = np.asanyarray(file.dataobj).squeeze(), float(file.header.get_zooms()[0])
    image = None
    if kind == "adult head":
        brain = ndimage.binary_closing((array > 0) & (array < 500) & (array != 24), iterations=3)
        grey, white = np.isin(array, GREY), np.isin(array, WHITE)
        bone, muscle, fat = np.isin(array, [515, 502]), np.isin(array, [507, 508, 512]), np.isin(array, [511, 530])
        rest = {
            "muscle": muscle,
            "bone": bone,
            "fat": fat,
            "marrow": array == 516,
            "mucosa": np.isin(array, [509, 514]),
        }
        rest["fluid"] = (array > 0) & ~(grey | white) & ~np.logical_or.reduce(list(rest.values()))
        rest["fluid"] &= ndimage.binary_dilation(brain, iterations=8)
    else:
        array = np.pad(array.astype(np.float32), round(20 / mm))
        brain = ndimage.binary_fill_holes(ndimage.binary_closing(array > 0.05 * array.max(), iterations=2))
        image = array / array[brain].mean()
        low, cut = np.quantile(image[brain], 0.1), np.quantile(image[brain], 0.55)
        dark = brain & (image > low) & (image < cut)
        bright = brain & (image >= cut) & (image < np.quantile(image[brain], 0.97))
        grey, white = (bright, dark) if "T2w" in path.name else (dark, bright)
        outside = ndimage.distance_transform_edt(~brain) * mm
        layers = zip(("fluid", "bone", "muscle", "fat"), itertools.pairwise((0, 2.0, 6.5, 8.5, 12.0)), strict=True)
        rest = {name: (outside > a) & (outside <= b) for name, (a, b) in layers}
    corner = np.argwhere(brain)
    centre = (corner.min(0) + corner.max(0)) / 2

    def soft(mask: NDArray[np.bool_]) -> Array:
        edge: Array = ndimage.gaussian_filter(mask.astype(np.float32), 0.5)
        return edge

    return Head(
        name=path.name.split(".")[0],
        kind=kind,
        grey=soft(grey),
        white=soft(white),
        rest={part: soft(mask) for part, mask in rest.items()},
        image=image,
        image_is="T2" if "T2w" in path.name else "T1",
        brain=soft(brain),
        to_index=np.c_[np.eye(3) / mm, centre],
    )


def upright(head: Head, like: Head | None) -> Head:
    """The head turned about its brain's centre until the brain mirrors itself, and nods as `like`'s does."""
    grid = np.stack(np.meshgrid(*(np.arange(-90, 91, 5.0),) * 3, indexing="ij")).reshape(3, -1)

    def brain(of: Head, angles: Iterable[float], moved: Iterable[float], size: float = 1.0) -> Array:
        places = Rotation.from_euler("yzx", list(angles), degrees=True).as_matrix() @ grid / size
        index = of.to_index[:, :3] @ (places + np.array(list(moved))[:, None]) + of.to_index[:, 3:]
        found: Array = ndimage.map_coordinates(of.brain, index, np.float32, 1).reshape(37, 37, 37)
        return found

    def uneven(x: NDArray[np.float64]) -> float:
        cube = brain(head, (x[0], x[1], 0), (x[2], 0, 0))
        return float(np.square(cube - cube[::-1]).sum())

    roll, yaw, aside = optimize.minimize(uneven, np.zeros(3), method="Powell", options={"xtol": 0.05}).x
    pitch = 0.0
    if like:
        target = brain(like, (0, 0, 0), (0, 0, 0))
        start = (0.0, 0.0, 0.0, 10 * (like.brain.sum() * head.per_mm**3 / head.brain.sum() / like.per_mm**3) ** (1 / 3))

        def unlike(x: NDArray[np.float64]) -> float:
            found = brain(head, (roll, yaw, x[0]), (aside, x[1], x[2]), x[3] / 10)
            return float(np.square(found - target)[:, :, 16:].sum())  # above the cerebellum, which some have lost

        pitch = float(optimize.minimize(unlike, start, method="Powell", options={"xtol": 0.05}).x[0])
    turn = Rotation.from_euler("yzx", (roll, yaw, pitch), degrees=True).as_matrix()
    return replace(head, to_index=np.c_[head.to_index[:, :3] @ turn, head.to_index[:, 3]], leans=(roll, yaw, pitch))


def tissue(head: Head, weighting: str, rng: Rng, left: float = 1.0, way: str = "grey and white") -> Array:
    """The head's signal, with `left` of the contrast between grey and white."""
    g, w, fluid, muscle, bone, fat, marrow, mucosa = np.array(SIGNALS[weighting]) * rng.uniform(0.9, 1.1, 8)
    signals = {"fluid": fluid, "muscle": muscle, "bone": bone, "fat": fat, "marrow": marrow, "mucosa": mucosa}
    middle = (g + w) / 2
    g, w = middle + left * (g - middle), middle + left * (w - middle)
    if way == "all tissue":
        signals["fluid"] = middle + left * (fluid - middle)
    if head.image is None:
        signal = g * head.grey + w * head.white
        texture = ndimage.gaussian_filter(rng.standard_normal(signal.shape, np.float32), 1.5)
        signal *= 1 + 0.03 * texture / texture.std()
    else:
        signal = np.clip(head.image, 0, 2.5)
        inner = head.brain > 0.5
        mean_g, mean_w = signal[head.grey > 0.9].mean(), signal[head.white > 0.9].mean()
        # Two straight pieces: through the means of grey and white, and on to what fluid should be.
        ends = sorted([(0.0 if head.image_is == "T1" else 2.5, signals["fluid"]), (mean_g, g), (mean_w, w)])
        far = (2.5, ends[-1][1] + (w - g) * 0.3) if head.image_is == "T1" else (0.0, ends[0][1])
        ends = sorted([*ends, far])
        signal = np.interp(signal, [x for x, _ in ends], [y for _, y in ends]) * inner
    for name, share in head.rest.items():
        signal = signal + signals[name] * share
    found: Array = signal.astype(np.float32)
    return found


@dataclass(frozen=True)
class Grid:
    """The scan's voxels about the centre of its field of view."""

    plane: Plane
    shape: tuple[int, int, int]
    mm: tuple[float, float, float]
    directions: NDArray[np.float64]  # (3, 3): columns are the array's axes in RAS

    @property
    def steps(self) -> NDArray[np.float64]:
        return self.directions * self.mm


def draw_grid(head: Head, plane: Plane, scale: float, room_mm: float, rng: Rng) -> Grid:
    """A grid about the brain: `room_mm` of air beside the scalp, a slice or two more than the brain."""
    inside = np.argwhere(head.brain > 0.5)
    size = (np.ptp(inside, 0) + 1) / head.per_mm * scale
    pixel = rng.uniform(1.5, 1.7)
    directions = np.zeros((3, 3))
    shape, mm = [], (5.0, pixel, pixel)
    for axis, (ras, sign) in enumerate(AXES[plane]):
        directions[ras, axis] = sign
        extent = size[ras] + (2 * rng.uniform(5, 10) if axis == 0 else 2 * (12 + room_mm))
        shape.append(int(np.ceil(extent / mm[axis])))
    return Grid(plane, (int(np.clip(shape[0], 28, 44)), shape[1], shape[2]), mm, directions)


@dataclass(frozen=True)
class Pose:
    """Where the head lies: turned about the brain's centre (degrees about R, A, S), then moved (mm)."""

    angles: NDArray[np.float64]
    shift: NDArray[np.float64]

    def sample(
        self, part: Array, head: Head, grid: Grid, scale: float, field: Array | None = None, every: int = 1
    ) -> Array:
        """The part of the head as every so many slices see it, meant over their thickness; field: mm, as `warp`'s."""
        turn = Rotation.from_euler("xyz", self.angles, degrees=True).as_matrix().T / scale
        matrix = head.to_index[:, :3] @ turn
        offset = head.to_index[:, 3] - matrix @ self.shift
        n, r, c = grid.shape
        found = []
        for fine in (np.arange(FINE) + 0.5) / FINE:
            first = grid.steps @ (every // 2 + fine - n / 2, -(r - 1) / 2, -(c - 1) / 2)
            steps = grid.steps * (every, 1, 1)
            shape = (len(range(every // 2, n, every)), r, c)
            if field is None:
                found.append(
                    ndimage.affine_transform(part, matrix @ steps, matrix @ first + offset, shape, np.float32, 1)
                )
            else:
                points = np.einsum("ij,jabc->iabc", steps, np.indices(shape)) + first[:, None, None, None]
                points += np.stack(
                    [ndimage.map_coordinates(f, points / COARSE_MM + COARSE / 2, order=1) for f in field]
                )
                index = np.einsum("ij,jabc->iabc", matrix, points) + offset[:, None, None, None]
                found.append(ndimage.map_coordinates(part, index, np.float32, 1))
        mean: Array = np.mean(found, 0)
        return mean
