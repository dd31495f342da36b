"""True and named severities → figures: the challenge's fifteen, and what a site wants to know beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from qcnode.artifacts import Severity
from qcnode.ensemble.weights import Measured

Labels = NDArray[np.int64]
Figure = Callable[[Labels, Labels], float]  # truth, named
_CLASSES = [int(severity) for severity in Severity]


def confusion(truth: Labels, named: Labels) -> NDArray[np.float64]:
    """How many scans of each true severity (row) were called each severity (column)."""
    classes = len(Severity)
    return np.bincount(classes * truth + named, minlength=classes**2).reshape(classes, classes).astype(np.float64)


def macro_f1(truth: Labels, named: Labels) -> float:
    """Mean of the three severities' F1; a severity that nobody has or names counts 0."""
    table = confusion(truth, named)
    return float(np.mean(2 * table.diagonal() / np.maximum(table.sum(0) + table.sum(1), 1)))


def balanced_accuracy(truth: Labels, named: Labels) -> float:
    """Mean of the three severities' recall; a severity that nobody has counts 0."""
    table = confusion(truth, named)
    return float(np.mean(table.diagonal() / np.maximum(table.sum(1), 1)))


def severe_recall(truth: Labels, named: Labels) -> float:
    """The share of severe scans that are called severe: what a recall flag lives on."""
    severe = confusion(truth, named)[Severity.SEVERE]
    return float(severe[Severity.SEVERE] / max(severe.sum(), 1))


def quadratic_kappa(truth: Labels, named: Labels) -> float:
    """Cohen's kappa with quadratic weights: 1 is agreement, 0 is chance; 0 → 2 costs four times 0 → 1."""
    table = confusion(truth, named)
    cost = np.subtract.outer(_CLASSES, _CLASSES) ** 2
    by_chance = float((cost * np.outer(table.sum(1), table.sum(0))).sum() / table.sum())
    return 1 - float((cost * table).sum()) / by_chance if by_chance else 1.0


def majority(truth: Labels) -> Labels:
    """What always naming the commonest severity says: the least that any member must beat."""
    return np.full_like(truth, np.bincount(truth).argmax())


def challenge_figures(truth: Labels, named: Labels) -> dict[str, float]:
    """LISA 2025's fifteen: precision, recall, F1, F2 and accuracy, each weighted, macro and micro.

    scikit-learn's definitions with zero_division=0; the macro accuracy is the balanced one, as the challenge scores it.
    """
    figures: dict[str, float] = {}
    for average in ("weighted", "macro", "micro"):
        arguments = {"labels": _CLASSES, "average": average, "zero_division": 0}
        precision, recall, f1, _ = precision_recall_fscore_support(truth, named, **arguments)
        *_, f2, _ = precision_recall_fscore_support(truth, named, beta=2, **arguments)
        accuracy = recall if average == "macro" else accuracy_score(truth, named)
        values = {"precision": precision, "recall": recall, "f1": f1, "f2": f2, "accuracy": accuracy}
        figures |= {f"{average} {name}": float(value) for name, value in values.items()}
    return figures


def fifteen(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """The challenge's fifteen of many confusion tables at once: (…, 3, 3) → (…, 15), in `challenge_figures`'s order."""
    hits, support, named = np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(-1), tables.sum(-2)
    precision, recall = hits / np.maximum(named, 1), hits / np.maximum(support, 1)
    f1, f2 = ((1 + b * b) * hits / np.maximum(b * b * support + named, 1) for b in (1, 2))
    each = np.stack([precision, recall, f1, f2, recall], -2)  # (…, figure, severity)
    total = np.maximum(support.sum(-1), 1)[..., None]
    weighted = (each * support[..., None, :]).sum(-1) / total
    micro = np.broadcast_to(hits.sum(-1)[..., None] / total, weighted.shape)
    return np.concatenate([weighted, each.mean(-1), micro], -1)


def calibration_error(probabilities: NDArray[np.float64], truth: Labels, bins: int = 10) -> float:
    """Expected calibration error: how far the confidence in the named severity is from how often it is right.

    probabilities: (scan, severity). doi:10.1609/aaai.v29i1.9602, equal-width bins.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(confidence[bin_of == b].sum() - right[bin_of == b].sum()) for b in range(bins)]
    return float(sum(gaps) / len(truth))


def measured(
    figure: Figure,
    truth: Labels,
    named: Labels,
    subjects: Sequence[str],
    *,
    seed: int = 0,
    draws: int = 1000,
) -> Measured:
    """The figure with its 95 % interval: subjects, not scans, are drawn again, since a person's scans are alike."""
    unique, owner = np.unique(np.asarray(subjects), return_inverse=True)
    scans_of = [np.flatnonzero(owner == subject) for subject in range(len(unique))]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        scans = np.concatenate([scans_of[s] for s in generator.integers(len(unique), size=len(unique))])
        drawn.append(figure(truth[scans], named[scans]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Measured(value=figure(truth, named), low=float(low), high=float(high))
