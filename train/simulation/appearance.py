"""Artifacts drawn onto a finished scan by TorchIO, with the parameters of Sundaresan & Dinsdale that BRIQA takes over.

doi:10.1007/978-3-031-83008-2_4; arXiv 2510.26661. A draw is TorchIO's own deterministic transforms with every argument,
so it can be recorded and replayed. What is different from the released code, so that a label is true in the image:
intensities are in means of the head, not the scanner's; a parameter that theirs draws from zero upwards is drawn from
the upper fifth of its range, so that severe is more than moderate; every zipper has a spike, distortion is drawn, the
head is moved to either side, and the air is not set to zero, which would be a sign of the simulation. Every copy has an
artifact, where half of theirs are their scans again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torchio as tio
from numpy.typing import NDArray

from qcnode.artifacts import Artifact, Severity
from train.studies.quality_metrics import otsu

Image = NDArray[np.float32]
Affine = NDArray[np.float64]

COUNTS = (1, 2)  # of artifacts drawn onto one scan, each as likely
LEVEL_SHARES = (0.4, 0.4, 0.2)  # of severity 0, 1, 2 for an artifact that is drawn
# In the order of the physics: the anatomy moves, its signal changes, k-space is disturbed, noise comes last.
ORDER = (
    Artifact.DISTORTION,
    Artifact.POSITIONING,
    Artifact.CONTRAST,
    Artifact.MOTION,
    Artifact.ZIPPER,
    Artifact.BANDING,
    Artifact.NOISE,
)
# How much an artifact may change the scan, at severity 1 and at 2; what lies between two intervals is drawn again. The
# root mean square of the change in the head, over the head's mean; Banding's in its slab; Positioning's is the shift of
# the head's centre in mm, Distortion's the strain. What the scan's own artifacts drown is never true.
EFFECTS: dict[Artifact, tuple[tuple[float, float], tuple[float, float]]] = {
    Artifact.NOISE: ((0.035, 0.055), (0.07, 0.11)),
    Artifact.ZIPPER: ((0.02, 0.06), (0.12, 0.60)),
    Artifact.POSITIONING: ((5.0, 12.5), (15.0, 30.0)),
    Artifact.BANDING: ((0.035, 0.055), (0.07, 0.11)),
    Artifact.MOTION: ((0.06, 0.16), (0.19, 0.60)),
    Artifact.CONTRAST: ((0.06, 0.30), (0.40, 1.50)),
    Artifact.DISTORTION: ((0.10, 0.25), (0.40, 0.80)),
}
_BLUR_MM = 0.6
_SLAB_VOXELS = 120  # the length of the axis on which the slab's ends, 20-50 and 30-100, are given
_ARRAYS = {"control_points", "degrees", "translation", "times", "spikes_positions"}  # what TorchIO wants as arrays


@dataclass(frozen=True)
class Step:
    """One deterministic TorchIO transform. slab: along the first axis, in shares of it; None: the whole image."""

    artifact: Artifact | None  # None: of all
    transform: str
    arguments: dict[str, Any]
    slab: tuple[float, float] | None = None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Step:
        """The step as JSON holds it."""
        artifact, slab = record["artifact"], record["slab"]
        known = {"artifact": Artifact(artifact) if artifact else None, "slab": tuple(slab) if slab else None}
        return cls(**{**record, **known})

    def __call__(self, image: Image, affine: Affine) -> Image:
        """The image (x, y, z), in means of the head, after this step; a magnitude, as scanners give it."""
        arguments = {key: np.array(value) if key in _ARRAYS else value for key, value in self.arguments.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The maximum displacement is larger", RuntimeWarning)  # as published
            transform = getattr(tio, self.transform)(**arguments)
            changed: Image = np.abs(transform(tio.ScalarImage(tensor=image[None], affine=affine)).numpy()[0])
        if self.slab is None:
            return changed
        start, stop = (round(share * len(image)) for share in self.slab)
        out = image.copy()
        out[start:stop] = changed[start:stop]
        return out


@dataclass(frozen=True)
class AppearanceDraw:
    """The severities that are drawn onto a scan, and the steps that do it, in order."""

    levels: dict[str, int]
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        """The draw as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> AppearanceDraw:
        """The draw that `to_json` recorded."""
        return cls(record["levels"], tuple(Step.from_json(step) for step in record["steps"]))


def draw_levels(generator: np.random.Generator, free: Sequence[Artifact]) -> dict[Artifact, Severity]:
    """One or two of the free artifacts, each at severity 0, 1 or 2 by LEVEL_SHARES; the others at 0.

    Drawn again until one is above 0: a copy without an artifact is its scan again.
    """
    drawn: dict[Artifact, Severity] = {}
    while not any(drawn.values()):
        chosen = generator.choice(len(free), min(generator.choice(COUNTS), len(free)), replace=False)
        drawn = {free[i]: Severity(int(generator.choice(len(Severity), p=LEVEL_SHARES))) for i in chosen}
    return {artifact: drawn.get(artifact, Severity.NONE) for artifact in Artifact}


def draw(generator: np.random.Generator, levels: Mapping[Artifact, Severity]) -> AppearanceDraw:
    """Steps that realise these severities; none for severity 0. A blur follows all but Positioning."""
    affected = [artifact for artifact in ORDER if levels[artifact]]
    numbers = _Numbers(generator)
    steps = [step for artifact in affected for step in _STEPS[artifact](numbers, levels[artifact] - 1)]
    if set(affected) - {Artifact.POSITIONING}:
        steps.append(Step(None, "Blur", {"std": [numbers.within(0, _BLUR_MM)] * 3}))
    return AppearanceDraw({artifact.value: int(levels[artifact]) for artifact in Artifact}, tuple(steps))


def applied(image: Image, affine: Affine, drawn: AppearanceDraw) -> tuple[Image, dict[Artifact, float]]:
    """The scan (x, y, z) with the draw on it, and how much each artifact changed it; an empty draw changes nothing."""
    head = image > otsu(image[image > 0])
    scale = np.float32(image[head].mean())
    effects: dict[Artifact, float] = {}
    changed = image
    for artifact, steps in groupby(drawn.steps, key=lambda step: step.artifact):
        before, own = changed, list(steps)
        for step in own:
            changed = step(changed / scale, affine) * scale
        if artifact is Artifact.DISTORTION:
            effects[artifact] = _strain(own[0], head, affine)
        elif artifact:
            effects[artifact] = _effect(artifact, before / scale, changed / scale, head, affine)
    return changed, effects


def is_true(drawn: AppearanceDraw, effects: Mapping[Artifact, float]) -> bool:
    """Whether every artifact that was drawn changed the scan as much as its severity says."""
    bounds = {artifact: EFFECTS[artifact][drawn.levels[artifact] - 1] for artifact in effects}
    return all(low <= effects[artifact] <= high for artifact, (low, high) in bounds.items())


def _effect(artifact: Artifact, before: Image, after: Image, head: NDArray[np.bool_], affine: Affine) -> float:
    """How much the artifact changed the scan, in the unit of EFFECTS."""
    if artifact is Artifact.POSITIONING:
        return float(np.linalg.norm(affine[:3, :3] @ (_centre(after) - _centre(before))))
    change = (after - before)[head]
    if artifact is Artifact.BANDING:
        change = change[change != 0]  # the slab
    return float(np.sqrt(np.mean(change**2)))


def _strain(step: Step, head: NDArray[np.bool_], affine: Affine) -> float:
    """The size of the displacement's gradient, the median over the head: the step moves ramps of millimetres."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    linear = replace(step, arguments=step.arguments | {"image_interpolation": "linear"})  # exact on ramps
    axes = [np.arange(n, dtype=np.float32) * np.float32(mm) for n, mm in zip(head.shape, spacing, strict=True)]
    ramps = np.meshgrid(*axes, indexing="ij")
    gradients = [g for ramp in ramps for g in np.gradient(linear(ramp, affine) - ramp, *spacing)]
    return float(np.median(np.linalg.norm([g[head] for g in gradients], axis=0)))


def _centre(image: Image) -> NDArray[np.float64]:
    """The centroid of the head, in voxels."""
    return np.array([index.mean() for index in np.nonzero(image > otsu(image[image > 0]))])


class _Numbers:
    """Random numbers as JSON holds them."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def within(self, low: float, high: float) -> float:
        return float(self._generator.uniform(low, high))

    def up_to(self, most: float) -> float:
        """In the upper fifth: drawn from zero, a severe artifact could be less than a moderate one."""
        return self.within(0.8 * most, most)

    def either_side(self, most: float, *shape: int) -> Any:
        """Nested lists of this shape, each number in the upper fifth, with either sign."""
        signs = self._generator.choice([-1.0, 1.0], shape)
        return (signs * self._generator.uniform(0.8 * most, most, shape)).tolist()

    def shares(self, *shape: int) -> Any:
        """Nested lists of this shape, each number from 0 to 1."""
        return self._generator.random(shape).tolist()

    def whole(self, low: int, high: int) -> int:
        return int(self._generator.integers(low, high + 1))


# Each takes `level` 0 for moderate and 1 for severe, and picks from the pair of published parameters.


def _noise(numbers: _Numbers, level: int) -> list[Step]:
    std, seed = numbers.up_to((0.05, 0.10)[level]), numbers.whole(0, 2**31)
    return [Step(Artifact.NOISE, "Noise", {"mean": 0.0, "std": std, "seed": seed})]


def _zipper(numbers: _Numbers, level: int) -> list[Step]:
    spikes = numbers.shares((1, numbers.whole(1, 3))[level], 3)
    intensity = numbers.within(*((0.1, 0.2), (0.6, 1.0))[level])
    return [Step(Artifact.ZIPPER, "Spike", {"spikes_positions": spikes, "intensity": intensity})]


def _positioning(numbers: _Numbers, level: int) -> list[Step]:
    """Towards one of four corners of the (x, y) plane."""
    x, y = (numbers.within(*((5, 10), (10, 20))[level]) * (-1) ** numbers.whole(0, 1) for _ in range(2))
    return [Step(Artifact.POSITIONING, "Affine", _moved(x, y))]


def _moved(x: float, y: float) -> dict[str, Any]:
    return {"scales": [1.0] * 3, "degrees": [0.0] * 3, "translation": [x, y, 0.0], "default_pad_value": "otsu"}


def _banding(numbers: _Numbers, level: int) -> list[Step]:
    (noise,) = _noise(numbers, level)
    start = numbers.within(20, 50)
    stop = numbers.within(max(30, start + 10), 100)
    return [replace(noise, artifact=Artifact.BANDING, slab=(start / _SLAB_VOXELS, stop / _SLAB_VOXELS))]


def _motion(numbers: _Numbers, level: int) -> list[Step]:
    degrees, millimetres, count = ((5, 3, 2), (10, 7, 4))[level]
    even = (np.arange(count) + 1) / (count + 1)  # TorchIO's times: even, and up to .3 of a step off
    times = even + (np.array(numbers.shares(count)) - 0.5) * 0.6 / (count + 1)
    return [
        Step(
            Artifact.MOTION,
            "Motion",
            {
                "degrees": numbers.either_side(degrees, count, 3),
                "translation": numbers.either_side(millimetres, count, 3),
                "times": times.tolist(),
                "image_interpolation": "linear",
            },
        )
    ]


def _contrast(numbers: _Numbers, level: int) -> list[Step]:
    """Another curve of intensities, then shading; the field's constant is zero, since a gain is no artifact."""
    gamma, coefficient = ((0.1, 0.3), (0.3, 1.0))[level]
    coefficients = [0.0, *(numbers.within(-coefficient, coefficient) for _ in range(19))]  # of order 3: 20
    return [
        Step(Artifact.CONTRAST, "BiasField", {"coefficients": coefficients, "order": 3}),
        Step(Artifact.CONTRAST, "Gamma", {"gamma": float(np.exp(numbers.either_side(gamma, 1)[0]))}),
    ]


def _distortion(numbers: _Numbers, level: int) -> list[Step]:
    points, millimetres = ((7, 9.0), (12, 12.0))[level]
    inner = points - 4  # two layers of control points at every side stay
    field = np.zeros((points, points, points, 3))
    field[2:-2, 2:-2, 2:-2] = numbers.either_side(millimetres, inner, inner, inner, 3)
    arguments = {"control_points": field.tolist(), "max_displacement": [millimetres] * 3}
    return [Step(Artifact.DISTORTION, "ElasticDeformation", arguments | {"image_interpolation": "bspline"})]


_STEPS: dict[Artifact, Callable[[_Numbers, int], list[Step]]] = {
    Artifact.NOISE: _noise,
    Artifact.ZIPPER: _zipper,
    Artifact.POSITIONING: _positioning,
    Artifact.BANDING: _banding,
    Artifact.MOTION: _motion,
    Artifact.CONTRAST: _contrast,
    Artifact.DISTORTION: _distortion,
}
