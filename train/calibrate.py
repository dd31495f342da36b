"""Validation logits → the temperature that makes their probabilities most likely."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from qcnode.ensemble.calibration import probabilities

_RANGE = (0.2, 10.0)


def fitted_temperature(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """The temperature within _RANGE of least negative log-likelihood. logits: (scan, severity). truth: (scan,)."""

    def loss(log_temperature: float) -> float:
        named = probabilities(logits, float(np.exp(log_temperature)))[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(named, 1e-12)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(_RANGE), method="bounded").x))
