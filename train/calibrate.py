"""Validation logits → the calibration under which the true severities are most likely, and named best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from qcnode.ensemble.calibration import Calibration, named, probabilities
from train.metrics import macro_f1

_POWERS = (0.0, 0.25, 0.5)  # of a rarity; with more, a clean scan in five would be called moderate
_LOG_TEMPERATURE, _BIAS = (np.log(0.2), np.log(10.0)), (-5.0, 5.0)  # bounds


def fitted_calibration(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> Calibration:
    """The calibration of least negative log-likelihood, with a bias only where that names severities better.

    A weak member's bias would make it call every scan clean: likely to be right, and of no use. The higher macro F1 on
    these scans decides; and so it does of how far the emphasis makes up for a severity's rarity, in quarters of the
    logarithm of its share. logits: (scan, severity). truth: (scan,).
    """

    fitted = [_likeliest(logits, truth, bias) for bias in ((0.0, 0.0), _BIAS)]
    best = max(fitted, key=lambda one: macro_f1(truth, probabilities(logits, one).argmax(axis=1)))
    found = probabilities(logits, best)
    none, moderate, severe = np.maximum(np.bincount(truth, minlength=3), 1)
    emphases = [(1.0, float((none / moderate) ** power), float((none / severe) ** power)) for power in _POWERS]
    return best._replace(emphasis=max(emphases, key=lambda one: macro_f1(truth, named(found, one))))


def log_loss(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """The mean negative logarithm of the true severity's probability, by the temperature and bias that make it least.

    What no calibration can mend of a member; it tells members apart on fewer scans than it takes to count who is named.
    """
    return _loss(logits, truth, _likeliest(logits, truth, _BIAS))


def _likeliest(logits: NDArray[np.floating], truth: NDArray[np.int64], bias: tuple[float, float]) -> Calibration:
    """The calibration of least loss, its biases within these bounds."""

    def calibration(values: NDArray[np.float64]) -> Calibration:
        log_temperature, moderate, severe = (float(value) for value in values)
        return Calibration(float(np.exp(log_temperature)), (0.0, moderate, severe))

    def loss(values: NDArray[np.float64]) -> float:
        return _loss(logits, truth, calibration(values))

    return calibration(minimize(loss, np.zeros(3), bounds=(_LOG_TEMPERATURE, bias, bias), method="L-BFGS-B").x)


def _loss(logits: NDArray[np.floating], truth: NDArray[np.int64], calibration: Calibration) -> float:
    of_truth = probabilities(logits, calibration)[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(of_truth, 1e-12)).mean())
