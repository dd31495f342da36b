"""Logits → probabilities that mean what they say: scaled by a temperature, shifted by how frequent each severity is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Calibration(NamedTuple):
    """How a member's logits become probabilities (bias-corrected temperature scaling, doi:10.48550/arXiv.1901.06852).

    temperature: above 1 makes the member less sure. bias: added to the scaled logits, for severities 0, 1 and 2; it
    undoes that training showed the rare severities nearly as often as the common one. emphasis: what a probability
    counts when a severity is named; a rare severity is never the likeliest on faint signs, and would never be named.
    """

    temperature: float = 1.0
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    emphasis: tuple[float, float, float] = (1.0, 1.0, 1.0)


def probabilities(logits: NDArray[np.floating], calibration: Calibration) -> NDArray[np.float64]:
    """The probability of each severity, along the last axis; the logits may have any leading axes."""
    scaled = np.asarray(logits, np.float64) / calibration.temperature + np.asarray(calibration.bias)
    exp: NDArray[np.float64] = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    total: NDArray[np.float64] = exp.sum(axis=-1, keepdims=True)
    return np.divide(exp, total)


def named(found: NDArray[np.float64], emphasis: tuple[float, float, float]) -> NDArray[np.int64]:
    """The severity that is named, along the last axis: the likeliest by what each one's probability counts."""
    return np.asarray((found * np.asarray(emphasis)).argmax(axis=-1), np.int64)
