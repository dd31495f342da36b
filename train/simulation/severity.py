"""The severity contract in numbers: what is measured for each artifact, and which interval means which severity.

Values between two intervals have no severity: a simulated scan that lands there is not used, so a label is never a coin
toss. Amplitudes are relative to S, the mean of the clean scan inside the brain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from qcnode.artifacts import Artifact, Severity
from qcnode.errors import PermanentError

CONTRACT = "qcnode-severity-1"  # named in the model card; a change of any number below needs a new name


class OutOfContract(PermanentError):  # noqa: N818 - it names the value, not a failure of the program
    """A measured value lies between two severities, or not at the severity that was drawn."""


class Interval(NamedTuple):
    """A closed interval of a measured quantity."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, float | int) and self.low - 1e-6 <= value <= self.high + 1e-6

    def drawn(self, generator: np.random.Generator) -> float:
        """A value of it, each as likely."""
        return float(generator.uniform(self.low, self.high))


NOISE_SIGMA = (Interval(0.0, 0.05), Interval(0.09, 0.13), Interval(0.18, 0.30))
ZIPPER_AMPLITUDE = (Interval(0.0, 0.03), Interval(0.15, 0.30), Interval(0.60, 1.20))
MANY_ZIPPERS_AMPLITUDE = Interval(0.30, 1.20)  # three to six lines are severe from here
TILT_DEGREES = (Interval(0.0, 5.0), Interval(10.0, 18.0), Interval(25.0, 40.0))
OFFSET_MM = (Interval(0.0, 6.0), Interval(12.0, 20.0))
CUT_SHARE = (Interval(0.0, 0.001), Interval(0.0, 0.02), Interval(0.08, 0.35))
BAND_DEPTH = (Interval(0.0, 0.03), Interval(0.12, 0.20), Interval(0.32, 0.55))
MOTION_NRMS = (Interval(0.0, 0.04), Interval(0.10, 0.17), Interval(0.25, 0.45))
CONTRAST_LEFT = (Interval(0.85, 1.10), Interval(0.50, 0.65), Interval(0.15, 0.35))
SHADING_RATIO = (Interval(1.0, 1.4), Interval(1.9, 2.5), Interval(3.5, 6.0))
DISPLACEMENT_MM = (Interval(0.0, 1.5), Interval(5.0, 8.0), Interval(11.0, 18.0))
STRAIN = (Interval(0.0, 0.08), Interval(0.15, 0.35), Interval(0.40, 1.50))
SMALLEST_JACOBIAN = 0.2

# The stronger hides the weaker, so the weaker's label would not be true in the image.
FORBIDDEN_PAIRS = (
    ((Artifact.NOISE, Severity.SEVERE), (Artifact.ZIPPER, Severity.MODERATE)),
    ((Artifact.NOISE, Severity.SEVERE), (Artifact.MOTION, Severity.MODERATE)),
)


def is_forbidden(levels: Mapping[Artifact, Severity]) -> bool:
    """Whether two of these severities would hide one another."""
    return any(levels[a] == level_a and levels[b] == level_b for (a, level_a), (b, level_b) in FORBIDDEN_PAIRS)


def severity_of(artifact: Artifact, measured: Mapping[str, float]) -> Severity:
    """The severity that these measured values mean.

    measured: the keys of `MEASURED[artifact]`. Raises OutOfContract for a value between two intervals.
    """
    values = [measured[key] for key in MEASURED[artifact]]
    severity = _RULES[artifact](*values)
    if severity is None:
        raise OutOfContract(f"{artifact} measured {values}, which is no severity; draw the scan again")
    return severity


MEASURED: dict[Artifact, tuple[str, ...]] = {
    Artifact.NOISE: ("noise_sigma",),
    Artifact.ZIPPER: ("zipper_amplitude", "zipper_lines"),
    Artifact.POSITIONING: ("tilt_degrees", "offset_mm", "cut_share"),
    Artifact.BANDING: ("band_depth",),
    Artifact.MOTION: ("motion_nrms",),
    Artifact.CONTRAST: ("contrast_left", "shading_ratio"),
    Artifact.DISTORTION: ("displacement_mm", "strain"),
}


def _single(value: float, intervals: tuple[Interval, ...]) -> Severity | None:
    return next((Severity(level) for level, interval in enumerate(intervals) if value in interval), None)


def _zipper(amplitude: float, lines: float) -> Severity | None:
    if 3 <= lines <= 6:
        return Severity.SEVERE if amplitude in MANY_ZIPPERS_AMPLITUDE else None
    return _single(amplitude, ZIPPER_AMPLITUDE) if lines <= 2 else None


def _positioning(tilt: float, offset: float, cut: float) -> Severity | None:
    tilted = _single(tilt, TILT_DEGREES)
    if tilted is None:
        return None
    if cut in CUT_SHARE[2]:
        return Severity.SEVERE  # the head is as far off as it takes
    shifted = _single(offset, OFFSET_MM)
    if shifted is None or cut not in CUT_SHARE[1]:
        return None
    if tilted == shifted == Severity.NONE and cut not in CUT_SHARE[0]:
        return None
    return max(tilted, shifted)


def _contrast(left: float, ratio: float) -> Severity | None:
    lost, shaded = _single(left, CONTRAST_LEFT), _single(ratio, SHADING_RATIO)
    return None if lost is None or shaded is None else max(lost, shaded)


def _distortion(displacement: float, strain: float) -> Severity | None:
    moved, strained = _single(displacement, DISPLACEMENT_MM), _single(strain, STRAIN)
    return moved if moved == strained else None


_RULES: dict[Artifact, Callable[..., Severity | None]] = {
    Artifact.NOISE: lambda sigma: _single(sigma, NOISE_SIGMA),
    Artifact.ZIPPER: _zipper,
    Artifact.POSITIONING: _positioning,
    Artifact.BANDING: lambda depth: _single(depth, BAND_DEPTH),
    Artifact.MOTION: lambda nrms: _single(nrms, MOTION_NRMS),
    Artifact.CONTRAST: _contrast,
    Artifact.DISTORTION: _distortion,
}
