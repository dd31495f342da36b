"""Logits → probabilities that mean what they say: temperature scaling (doi:10.48550/arXiv.1706.04599)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def probabilities(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Softmax of logits / temperature along the last axis; the temperature changes how sure, never which."""
    scaled = np.asarray(logits, np.float64) / temperature
    exp: NDArray[np.float64] = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    total: NDArray[np.float64] = exp.sum(axis=-1, keepdims=True)
    return np.divide(exp, total)
