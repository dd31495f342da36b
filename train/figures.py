"""Figures of a comparison, as SVG: confusion tables, reliability, each severity's F1, learning curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qcnode.artifacts import Artifact, Severity
from qcnode.errors import ConfigError
from train.loop import CURVE
from train.tables import EFFECTS, Measure, Said, effect_of, severity_f1

if TYPE_CHECKING:
    from train.studies.few_labels import Point
    from train.studies.jobs import Job, Study

_SEVERITIES = [severity.name.lower() for severity in Severity]


def draw_figures(said: Said, measure: Measure, runs: Sequence[Job], study: Study, out: Path) -> list[Path]:
    """All figures of one row, in `out`. Raises ConfigError where matplotlib is not installed."""
    found = {"confusion": _confusion, "reliability": _reliability, "f1": _f1}
    paths = []
    for name, draw in found.items():
        figure, axes = _panels(list(said))
        for artifact, graded in said.items():
            draw(axes[artifact], graded, measure)
        paths.append(_saved(figure, out / f"{name}.svg"))
    figure, axes = _panels(list(said))
    for job in runs:
        _curve(axes[job.artifact], job.folder(study) / CURVE.format(job.artifact))
    return [*paths, _saved(figure, out / "curves.svg")]


def draw_effects(rows: Mapping[tuple[str, bool], Sequence[Said]], measure: Measure, out: Path) -> Path:
    """What reweighting and rotating batches add: a dot a repeat, and the mean with its interval. As `draw_figures`."""
    artifacts = list(next(iter(rows.values()))[0])
    figure, axes = _panels(artifacts)
    for artifact, axis in axes.items():
        for place, (_, more, less) in enumerate(EFFECTS):
            drawn = effect_of(rows, (more, less), [artifact], measure)
            low, high = np.quantile(drawn.mean(0)[1:], [0.025, 0.975])
            axis.plot([low, high], [place, place], color="tab:blue", linewidth=2)
            axis.plot([drawn[:, 0].mean()], [place], "o", color="tab:blue", label="mean, 95 %" if not place else None)
            repeats = "a repeat" if not place else None
            axis.plot(drawn[:, 0], np.full(len(drawn), place + 0.2), "x", color="grey", label=repeats)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_yticks(range(len(EFFECTS)), [name.replace(", ", ",\n") for name, _, _ in EFFECTS], fontsize=7)
        axis.invert_yaxis()
        axis.set_xlabel("macro F1 more")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower right", fontsize=9)
    return _saved(figure, out / "effects.svg")


def draw_shares(points: Sequence[Point], out: Path) -> Path:
    """Macro F1 against the share of training patients, from scratch and from the weights. As `draw_figures`."""
    figure, axes = _panels(list(dict.fromkeys(point.artifact for point in points)))
    for artifact, axis in axes.items():
        for start in dict.fromkeys(point.start for point in points):
            its = [p for p in points if (p.artifact, p.start) == (artifact, start) and p.macro_f1.size]
            # A start that nothing was told of has its place in the legend, so that the other keeps its colour.
            drawn = np.array([point.macro_f1.mean(0) for point in its]) if its else np.empty((0, 2))
            low, high = np.quantile(drawn[:, 1:], [0.025, 0.975], axis=1)
            scans = [point.scans for point in its]
            (line,) = axis.plot(scans, drawn[:, 0], "o-", label=start)
            axis.fill_between(scans, low, high, color=line.get_color(), alpha=0.2)
        axis.set_xlabel("labelled scans")
        axis.set_ylabel("macro F1 (95 %)")
        axis.set_ylim(0, 1)
        axis.legend(fontsize=7)
    return _saved(figure, out)


def _panels(artifacts: Sequence[Artifact]) -> tuple[Any, Mapping[Artifact, Any]]:
    """A figure with one panel an artifact, four in a row."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("The figures need matplotlib; install it with `pip install qcnode[tables]`.") from error
    rows, columns = -(-len(artifacts) // 4), min(4, len(artifacts))
    figure = Figure(figsize=(max(5, 3 * columns), 3 * rows), layout="constrained")
    axes = {a: figure.add_subplot(rows, columns, i) for i, a in enumerate(artifacts, start=1)}
    for artifact, axis in axes.items():
        axis.set_title(artifact)
    return figure, axes


def _confusion(axis: Any, graded: Any, measure: Measure) -> None:
    table = measure.confusions(graded)[0]
    axis.imshow(table / np.maximum(table.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        dark = count > 0.5 * max(table[row].sum(), 1)
        axis.text(column, row, f"{count:.0f}", ha="center", va="center", color="white" if dark else "black")
    axis.set_xticks(range(3), _SEVERITIES)
    axis.set_yticks(range(3), _SEVERITIES)
    axis.set_xlabel("called")
    axis.set_ylabel("true")


def _reliability(axis: Any, graded: Any, measure: Measure) -> None:
    """How often the named severity is right, by the confidence in it, in ten bins of equal width."""
    confidence, right = graded.probabilities.max(axis=1), graded.named == graded.truth
    bin_of = np.minimum((confidence * 10).astype(int), 9)
    bins = np.unique(bin_of)
    size = [(bin_of == b).sum() for b in bins]
    axis.plot([1 / 3, 1], [1 / 3, 1], color="grey", linewidth=0.8)
    axis.plot([confidence[bin_of == b].mean() for b in bins], [right[bin_of == b].mean() for b in bins])
    axis.scatter(
        [confidence[bin_of == b].mean() for b in bins],
        [right[bin_of == b].mean() for b in bins],
        s=100 * np.array(size) / len(right),
    )
    axis.set_xlabel("confidence")
    axis.set_ylabel("right")
    axis.set_ylim(0, 1.02)


def _f1(axis: Any, graded: Any, measure: Measure) -> None:
    drawn = severity_f1(graded, measure)
    low, high = np.quantile(drawn[1:], [0.025, 0.975], axis=0)
    below, above = np.maximum(drawn[0] - low, 0), np.maximum(high - drawn[0], 0)
    axis.bar(range(3), drawn[0], yerr=[below, above], color="tab:blue", capsize=4)
    axis.set_xticks(range(3), _SEVERITIES)
    axis.set_ylabel("F1 (95 %)")
    axis.set_ylim(0, 1)


def _curve(axis: Any, path: Path) -> None:
    with path.open(newline="") as file:
        epochs = list(csv.DictReader(file))
    axis.plot([int(row["epoch"]) for row in epochs], [float(row["macro_f1"]) for row in epochs], linewidth=0.8)
    axis.set_xlabel("epoch")
    axis.set_ylabel("macro F1, validation")
    axis.set_ylim(0, 1)


def _saved(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
