"""Drawing an artifact's parameters, apart from applying them, so that a draw can be recorded and replayed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from qcnode.artifacts import Artifact, Severity
from train.simulation import deformation, shading
from train.simulation import severity as contract
from train.simulation.severity import Interval

Levels = Mapping[Artifact, Severity]
Triple = tuple[float, float, float]

ARTIFACT_COUNT_SHARES = (0.12, 0.25, 0.33, 0.20, 0.10)  # of scans with 0, 1, … artifacts
MOTION_ORDER_SHARES = {"linear": 0.4, "interleaved": 0.25, "scattered": 0.15, "centre-out": 0.2}
SHADING_SHARES: Mapping[shading.Kind, float] = {"smooth": 0.5, "middle": 0.25, "one-sided": 0.25}
DISTORTION_SHARES: Mapping[deformation.Kind, float] = {"waves": 0.4, "axis": 0.25, "bumps": 0.2, "radial": 0.15}


@dataclass(frozen=True)
class Draw:
    """Every parameter of one simulated scan; random fields by the seed that makes them.

    phase_axis: 1 or 2, the array's axis of phase encoding, which motion and zippers share.
    """

    levels: dict[str, int]
    phase_axis: int
    # noise
    noise_sigma: float
    noise_seed: int
    # zipper; positions are shares of the readout, slices shares of the stack
    zipper_amplitude: float
    zipper_positions: tuple[float, ...]
    zipper_phase: Literal["jumps", "drifts"]
    zipper_slices: tuple[float, float]
    zipper_seed: int
    # positioning; None: as the clean scan. With a cut_share the head is moved along the offset until so much is cut
    tilt_degrees: Triple | None
    offset_mm: Triple | None
    cut_share: float | None
    # banding; (centre, width, height) in shares of the field of view
    band_depth: float
    band_direction: Triple
    bands: tuple[Triple, ...]
    band_flat: float
    # motion; poses (angles, shifts) before they are scaled to motion_nrms; lines are filled in this order
    motion_nrms: float
    motion_poses: tuple[tuple[Triple, Triple], ...]
    motion_order: Literal["linear", "interleaved", "scattered", "centre-out"]
    motion_seed: int
    # contrast
    contrast_left: float
    shading_ratio: float
    shading_seed: int
    # distortion
    displacement_mm: float
    strain: float
    distortion_seed: int
    # the kinds of the last two, after what has no default: older records name none
    shading_kind: shading.Kind = "smooth"
    distortion_kind: deformation.Kind = "waves"

    def to_json(self) -> dict[str, Any]:
        """The draw as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Draw:
        """The draw that `to_json` recorded."""
        return cls(**{key: _tuples(value) for key, value in record.items()})


def draw_levels(generator: np.random.Generator) -> dict[Artifact, Severity]:
    """Severities of one scan: few artifacts at a time, moderate and severe alike, no pair that hides itself."""
    while True:
        count = int(generator.choice(len(ARTIFACT_COUNT_SHARES), p=ARTIFACT_COUNT_SHARES))
        chosen = {list(Artifact)[i] for i in generator.choice(len(Artifact), count, replace=False)}
        levels = {a: Severity(int(generator.integers(1, 3))) if a in chosen else Severity.NONE for a in Artifact}
        if not contract.is_forbidden(levels):
            return levels


def draw(generator: np.random.Generator, levels: Levels, *, slight: bool = True) -> Draw:
    """Parameters that realise these severities.

    slight: let artifacts of severity 0 be there below their threshold, as they are in life; else they are absent.
    """
    if contract.is_forbidden(levels):
        raise contract.OutOfContract("one of these severities would hide another in the image; draw other levels")
    within, level = _Within(generator, slight), levels.__getitem__
    amplitude, positions = _zipper(generator, within, level(Artifact.ZIPPER))
    tilt, offset, cut = _positioning(generator, level(Artifact.POSITIONING))
    left, ratio = _contrast(generator, within, level(Artifact.CONTRAST), slight)
    start = float(generator.uniform(0, 0.3))
    sigma = contract.NOISE_SIGMA[level(Artifact.NOISE)]
    quietest = max(sigma.low, 0.01) if slight or level(Artifact.NOISE) else 0.0  # no scanner is silent
    return Draw(
        levels={artifact.value: int(levels[artifact]) for artifact in Artifact},
        phase_axis=int(generator.integers(1, 3)),
        noise_sigma=float(generator.uniform(quietest, sigma.high - 0.001)) if quietest else 0.0,
        noise_seed=_seed(generator),
        zipper_amplitude=amplitude,
        zipper_positions=positions,
        zipper_phase="jumps" if generator.random() < 0.65 else "drifts",
        zipper_slices=(start, float(generator.uniform(start + 0.5, 1.0))),
        zipper_seed=_seed(generator),
        tilt_degrees=tilt,
        offset_mm=offset,
        cut_share=cut,
        band_depth=within(contract.BAND_DEPTH, level(Artifact.BANDING)),
        band_direction=band_direction(generator),
        bands=bands(generator),
        band_flat=band_flat(generator),
        motion_nrms=within(contract.MOTION_NRMS, level(Artifact.MOTION), share=0.3),
        motion_poses=_poses(generator),
        motion_order=_one_of(generator, MOTION_ORDER_SHARES),
        motion_seed=_seed(generator),
        contrast_left=left,
        shading_ratio=ratio,
        shading_seed=_seed(generator),
        displacement_mm=within(contract.DISPLACEMENT_MM, level(Artifact.DISTORTION), share=0.3),
        strain=_strain(generator, level(Artifact.DISTORTION)),
        distortion_seed=_seed(generator),
        shading_kind=_one_of(generator, SHADING_SHARES),
        distortion_kind=_one_of(generator, DISTORTION_SHARES),
    )


class _Within:
    """Draws from the interval of a severity, a little inside it; severity 0 is half the time exactly its zero."""

    def __init__(self, generator: np.random.Generator, slight: bool) -> None:
        self._generator, self._slight = generator, slight

    def __call__(self, intervals: tuple[Interval, ...], severity: Severity, share: float = 0.5) -> float:
        low, high = intervals[severity]
        if severity == Severity.NONE and not (self._slight and self._generator.random() < share):
            return low
        margin = 0.03 * (high - low)
        return float(self._generator.uniform(low + margin, high - margin))


def _one_of(generator: np.random.Generator, shares: Mapping[Any, float]) -> Any:
    return generator.choice(list(shares), p=list(shares.values())).item()


def _seed(generator: np.random.Generator) -> int:
    return int(generator.integers(2**31))


def _triple(values: np.ndarray[Any, Any]) -> Triple:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _direction(generator: np.random.Generator, weights: Triple = (1.0, 1.0, 1.0)) -> Triple:
    """Mostly along an axis, somewhat oblique."""
    axis = generator.choice(3, p=np.array(weights) / sum(weights))
    direction = np.eye(3)[axis] + generator.normal(0, 0.15, 3)
    return _triple(direction / np.linalg.norm(direction) * generator.choice([-1.0, 1.0]))


def _zipper(generator: np.random.Generator, within: _Within, severity: Severity) -> tuple[float, tuple[float, ...]]:
    amplitude = within(contract.ZIPPER_AMPLITUDE, severity)
    count = int(generator.integers(1, 3))
    if severity == Severity.SEVERE and generator.random() < 0.5:
        count = int(generator.integers(3, 7))
        amplitude = float(generator.uniform(0.32, 1.1))
    while True:
        positions = np.sort(generator.uniform(0.08, 0.92, count))
        if count == 1 or np.diff(positions).min() > 0.05:  # so that each is a line of its own
            return amplitude, tuple(float(p) for p in positions)


def _positioning(
    generator: np.random.Generator, severity: Severity
) -> tuple[Triple | None, Triple | None, float | None]:
    if severity == Severity.NONE:
        return None, None, None
    small_tilt = generator.uniform(-4.8, 4.8, 3)
    small_offset = np.array(_direction(generator)) * generator.uniform(0, 5.8)
    tilted = generator.random() < 0.5
    if tilted:
        low, high = contract.TILT_DEGREES[severity]
        small_tilt[generator.integers(3)] = generator.choice([-1, 1]) * generator.uniform(low + 0.2, high - 0.2)
        return _triple(small_tilt), _triple(small_offset), None
    if severity == Severity.MODERATE:
        offset = np.array(_direction(generator)) * generator.uniform(12.2, 19.8)
        return _triple(small_tilt), _triple(offset), None
    return _triple(small_tilt), _direction(generator), float(generator.uniform(0.09, 0.25))


def band_direction(generator: np.random.Generator) -> Triple:
    """Of the axis across which bands lie: along the slices less often than within them."""
    return _direction(generator, (0.4, 1.0, 1.0))


def band_flat(generator: np.random.Generator) -> float:
    """The share of a band at its full height."""
    return float(generator.uniform(0.0, 0.7))


def bands(generator: np.random.Generator) -> tuple[Triple, ...]:
    """One to four bands side by side, each 10-40 % of the field of view, one of them at full height."""
    while True:
        count = int(generator.integers(1, 5))
        widths = generator.uniform(0.10, min(0.40, 0.9 / count), count)
        centres = np.sort(generator.uniform(0.2, 0.8, count))
        apart = np.diff(centres) - (widths[1:] + widths[:-1]) / 2
        heights = generator.uniform(0.6, 1.0, count)
        heights[np.abs(centres - 0.5).argmin()] = 1.0
        if (count == 1 and abs(centres[0] - 0.5) < 0.25) or (count > 1 and apart.min() > 0):
            return tuple(_triple(np.array(t)) for t in zip(centres, widths, heights, strict=True))


def _poses(generator: np.random.Generator) -> tuple[tuple[Triple, Triple], ...]:
    """Three to seven rigid poses as (degrees, mm), nodding, shaking or any movement, of a common size."""
    weights = generator.uniform(0.3, 1.0, 6)
    count = int(generator.integers(3, 8))
    poses = generator.standard_normal((count, 6)) * weights
    poses -= poses.mean(axis=0)
    return tuple((_triple(p[:3]), _triple(p[3:])) for p in poses)


def _contrast(generator: np.random.Generator, within: _Within, severity: Severity, slight: bool) -> tuple[float, float]:
    """What is left of the tissues' contrast, and the shading's ratio; one of them carries the severity."""
    faded = generator.random() < 0.5
    kept = float(generator.uniform(0.88, 1.0)) if slight and generator.random() < 0.5 else 1.0
    left = kept if severity == Severity.NONE or not faded else within(contract.CONTRAST_LEFT, severity)
    ratio = within(contract.SHADING_RATIO, Severity.NONE if faded else severity, share=0.8)
    return left, ratio


def _strain(generator: np.random.Generator, severity: Severity) -> float:
    low, high = ((0.01, 0.07), (0.16, 0.33), (0.42, 0.58))[severity]
    return float(generator.uniform(low, high))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
