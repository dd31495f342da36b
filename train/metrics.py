"""True and named severities → figures: the challenge's fifteen, and what a site wants to know beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from qcnode.agreement import Labels, Weights, confusion
from qcnode.artifacts import Severity
from qcnode.ensemble.weights import Measured

Figure = Callable[[Labels, Labels, Weights | None], float]  # truth, named, what each scan counts; None: all 1
_CLASSES = [int(severity) for severity in Severity]


def share(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """part / whole, and 0 of nothing."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    shares: NDArray[np.float64] = np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
    return shares


def macro_f1(truth: Labels, named: Labels, weights: Weights | None = None) -> float:
    """Mean of the three severities' F1; a severity that nobody has or names counts 0."""
    table = confusion(truth, named, weights)
    return float(np.mean(share(2 * table.diagonal(), table.sum(0) + table.sum(1))))


def balanced_accuracy(truth: Labels, named: Labels, weights: Weights | None = None) -> float:
    """Mean of the three severities' recall; a severity that nobody has counts 0."""
    table = confusion(truth, named, weights)
    return float(np.mean(share(table.diagonal(), table.sum(1))))


def severe_recall(truth: Labels, named: Labels, weights: Weights | None = None) -> float:
    """The share of severe scans that are called severe: what a recall flag lives on."""
    severe = confusion(truth, named, weights)[Severity.SEVERE]
    return float(share(severe[Severity.SEVERE], severe.sum()))


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


def challenge_mean(truth: Labels, named: Labels, weights: Weights | None = None) -> float:
    """Mean of the challenge's fifteen."""
    return float(fifteen(confusion(truth, named, weights)).mean())


def fifteen(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """The challenge's fifteen of many confusion tables at once: (…, 3, 3) → (…, 15), in `challenge_figures`'s order."""
    hits, support, named = np.diagonal(tables, axis1=-2, axis2=-1), tables.sum(-1), tables.sum(-2)
    precision, recall = share(hits, named), share(hits, support)
    f1, f2 = (share((1 + b * b) * hits, b * b * support + named) for b in (1, 2))
    each = np.stack([precision, recall, f1, f2, recall], -2)  # (…, figure, severity)
    total = support.sum(-1)[..., None]
    weighted = share((each * support[..., None, :]).sum(-1), total)
    micro = np.broadcast_to(share(hits.sum(-1)[..., None], total), weighted.shape)
    return np.concatenate([weighted, each.mean(-1), micro], -1)


def calibration_error(
    probabilities: NDArray[np.float64], truth: Labels, weights: Weights | None = None, bins: int = 10
) -> float:
    """Expected calibration error: how far the confidence in the likeliest severity is from how often it is right.

    probabilities: (scan, severity). weights: what each scan counts. doi:10.1609/aaai.v29i1.9602, equal-width bins.
    """
    weights = np.ones(len(truth)) if weights is None else weights
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.abs(np.bincount(bin_of, weights * (confidence - right), minlength=bins))
    return float(gaps.sum() / weights.sum())


def measured(
    figure: Figure,
    truth: Labels,
    named: Labels,
    subjects: Sequence[str],
    *,
    seed: int = 0,
    draws: int = 1000,
    centred: bool = False,
) -> Measured:
    """The figure with its 95 % interval: what subjects count is drawn, not scans, since a person's scans are alike.

    centred: the draws are moved until their mean is the figure, and none is below 0. A calibration error is a sum of
    magnitudes, which chance alone makes larger, and larger still in a draw: intervals that are not moved lie too high.
    """
    value = figure(truth, named, None)
    unique, owner = np.unique(np.asarray(subjects), return_inverse=True)
    drawn = [figure(truth, named, counts[owner]) for counts in subject_weights(len(unique), draws, seed)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    if centred:
        low, high = np.maximum(0, np.array([low, high]) - np.mean(drawn) + value)
    return Measured(value=value, low=float(low), high=float(high))


def subject_weights(subjects: int, draws: int, seed: int) -> Weights:
    """(draw, subject): what each subject counts in the draws of a Bayesian bootstrap, 1 on average.

    doi:10.1214/aos/1176345338. Nobody counts 0, so no draw is without a severity that somebody has, however rare, and
    would score it 0.
    """
    return np.random.default_rng(seed).dirichlet(np.ones(subjects), draws) * subjects
