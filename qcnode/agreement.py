"""How far two graders of the same scans agree, be they people, the machine, or the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qcnode.artifacts import Severity

Labels = NDArray[np.int64]
Weights = NDArray[np.float64]
_CLASSES = [int(severity) for severity in Severity]


def confusion(truth: Labels, named: Labels, weights: Weights | None = None) -> NDArray[np.float64]:
    """How many scans of each true severity (row) were called each severity (column). weights: what each counts."""
    classes = len(Severity)
    counts = np.bincount(classes * truth + named, weights, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.float64)


def quadratic_kappa(truth: Labels, named: Labels, weights: Weights | None = None) -> float:
    """Cohen's kappa with quadratic weights: 1 is agreement, 0 is chance; 0 → 2 costs four times 0 → 1."""
    return kappa_of(confusion(truth, named, weights))


def kappa_of(table: NDArray[np.float64]) -> float:
    """Quadratic kappa of a confusion table."""
    cost = np.subtract.outer(_CLASSES, _CLASSES) ** 2
    by_chance = float((cost * np.outer(table.sum(1), table.sum(0))).sum() / table.sum())
    return 1 - float((cost * table).sum()) / by_chance if by_chance else 1.0


def same_share(one: Labels, other: Labels) -> float:
    """The share of scans to which both give the same severity."""
    return float(np.mean(one == other))


def kappa_or_none(one: Labels, other: Labels) -> float | None:
    """Quadratic kappa, where chance could tell it from 1: None where there is but one severity, or one scan."""
    several = len(one) > 1 and len(np.union1d(one, other)) > 1
    return quadratic_kappa(one, other) if several else None


def consensus(grades: Sequence[Severity]) -> Severity:
    """The middle one of several people's grades; between two, the worse: a missed artifact costs more."""
    return sorted(grades)[len(grades) // 2]
