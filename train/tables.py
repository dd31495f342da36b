"""Predictions of many runs → the paper's three tables, each figure with its 95 % interval, as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcnode.artifacts import Artifact, Severity
from train.metrics import fifteen, share, subject_weights
from train.studies.comparisons import Row
from train.studies.folds import PREDICTIONS
from train.studies.jobs import Job, Study
from train.studies.report import Graded

Said = Mapping[Artifact, Graded]  # by one row's models, of every patient, pooled over folds and repeats
Cells = list[list[str]]
WEIGHTED_F1, MACRO_F1 = 2, 7  # among the fifteen
_DRAWS = 1000
# An effect's name, and the two rows, as (batching, reweight), whose difference it is.
EFFECTS = [
    ("reweighting, standard batches", ("standard", True), ("standard", False)),
    ("reweighting, rotating batches", ("rotating", True), ("rotating", False)),
    ("rotating batches, no reweighting", ("rotating", False), ("standard", False)),
    ("rotating batches, reweighting", ("rotating", True), ("standard", True)),
    ("both", ("rotating", True), ("standard", False)),
]


def jobs_of(row: Row, study: Study) -> list[Job]:
    """A run for each artifact, repeat and fold."""
    rounds = [(repeat + 1, fold + 1) for repeat in range(study.repeats) for fold in range(study.folds)]
    return [Job(artifact, config, *one) for artifact, config in row.configs.items() for one in rounds]


def said(row: Row, study: Study, subject_of: Mapping[str, str], repeat: int | None = None) -> dict[Artifact, Graded]:
    """What the row's finished runs predicted, in one repeat or all. subject_of: by file name."""
    found = {}
    for artifact in row.configs:
        lines: list[dict[str, str]] = []
        for job in jobs_of(row, study):
            if job.artifact == artifact and repeat in (None, job.repeat):
                with (job.folder(study) / PREDICTIONS).open(newline="") as file:
                    lines += csv.DictReader(file)
        found[artifact] = Graded(
            [subject_of[line["filename"]] for line in lines],
            np.array([int(line["truth"]) for line in lines]),
            np.array([[float(line[f"p{severity:d}"]) for severity in Severity] for line in lines]),
        )
    return found


class Measure:
    """The fifteen figures of rows, and of their differences, with intervals from the same draws of patients.

    draws[0] is everybody once; in the others what patients count is drawn, the same for all artifacts and rows, so that
    what two rows have in common falls out of their difference.
    """

    def __init__(self, subjects: Sequence[str], seed: int = 0) -> None:
        self.subjects = sorted(set(subjects))
        count = len(self.subjects)
        self.draws = np.vstack([np.ones(count), subject_weights(count, _DRAWS, seed)])

    def confusions(self, graded: Graded) -> NDArray[np.float64]:
        """(1 + draws, 3, 3): how many scans of each true severity (row) were called each severity (column)."""
        owner = np.searchsorted(self.subjects, graded.subjects)
        tables = np.zeros((len(self.subjects), len(Severity), len(Severity)))
        np.add.at(tables, (owner, graded.truth, graded.named), 1)
        return np.asarray(np.tensordot(self.draws, tables, 1))

    def of(self, graded: Graded) -> NDArray[np.float64]:
        """(1 + draws, 15)."""
        return fifteen(self.confusions(graded))

    def mean_of(self, said: Said) -> NDArray[np.float64]:
        """(1 + draws, 15): the mean over the artifacts."""
        return np.asarray(np.mean([self.of(graded) for graded in said.values()], axis=0))


def told(drawn: NDArray[np.float64], sign: str = "") -> str:
    """A figure's value and 95 % interval, from its value on everybody and on the draws."""
    low, high = np.quantile(drawn[1:], [0.025, 0.975])
    return f"{drawn[0]:{sign}.3f} ({low:{sign}.3f} – {high:{sign}.3f})"


def encoder_table(rows: Mapping[str, Said], measure: Measure) -> Cells:
    """Table 2: weighted F1 by artifact and their mean."""
    artifacts = list(next(iter(rows.values())))
    cells = [["weighted F1", *artifacts, "mean (95 %)", "macro F1 (95 %)"]]
    for name, said in rows.items():
        each = [f"{measure.of(graded)[0, WEIGHTED_F1]:.3f}" for graded in said.values()]
        mean = measure.mean_of(said)
        cells.append([name, *each, told(mean[:, WEIGHTED_F1]), told(mean[:, MACRO_F1])])
    return cells


def configuration_table(rows: Mapping[str, Said], measure: Measure) -> Cells:
    """Table 3: mean of the fifteen figures and macro F1, and what each row's macro F1 has over the first row's."""
    cells = [["configuration", "mean of 15 (95 %)", "macro F1 (95 %)", "macro F1 more than the first row's (95 %)"]]
    first = measure.mean_of(next(iter(rows.values())))[:, MACRO_F1]
    for name, said in rows.items():
        mean = measure.mean_of(said)
        more = told(mean[:, MACRO_F1] - first, "+") if len(cells) > 1 else ""
        cells.append([name, told(mean.mean(1)), told(mean[:, MACRO_F1]), more])
    return cells


def chosen_table(encoders: Mapping[str, Said], others: Mapping[str, Said], measure: Measure) -> Cells:
    """Table 4: by artifact, macro F1 of the best encoder beside the others, and what it has over the first of these.

    The best is chosen on the patients that it is measured on, as the paper does; its figure is flattered by that.
    """
    cells = [["macro F1 (95 %)", "best encoder", *others, f"best more than {next(iter(others))} (95 %)"]]
    for artifact in next(iter(encoders.values())):
        by_encoder = {name: measure.of(said[artifact])[:, MACRO_F1] for name, said in encoders.items()}
        best = max(by_encoder, key=lambda name: by_encoder[name][0])
        beside = [measure.of(said[artifact])[:, MACRO_F1] for said in others.values()]
        more = told(by_encoder[best] - beside[0], "+")
        cells.append([artifact, f"{best}: {told(by_encoder[best])}", *map(told, beside), more])
    return cells


def effect_table(rows: Mapping[tuple[str, bool], Sequence[Said]], measure: Measure) -> Cells:
    """What reweighting and rotating batches add to macro F1, each with the other and without, by artifact and in all.

    rows: by (batching, reweight), what was said in each repeat. The interval is of the mean over the repeats, by
    patient; beside it the standard deviation between repeats, whose folds and seeds differ.
    """
    cells = [["macro F1 more (95 %; SD between repeats)", *(name for name, _, _ in EFFECTS)]]
    artifacts = list(next(iter(rows.values()))[0])
    mean = [("mean", artifacts)] if len(artifacts) > 1 else []
    for name, chosen in [*((str(a), [a]) for a in artifacts), *mean]:
        effects = [effect_of(rows, (more, less), chosen, measure) for _, more, less in EFFECTS]
        cells.append([name, *(f"{told(drawn.mean(0), '+')}; {_deviation(drawn[:, 0])}" for drawn in effects)])
    return cells


def effect_of(
    rows: Mapping[tuple[str, bool], Sequence[Said]],
    pair: tuple[tuple[str, bool], tuple[str, bool]],
    artifacts: Sequence[Artifact],
    measure: Measure,
) -> NDArray[np.float64]:
    """(repeat, 1 + draws): what the pair's first row has over its second in macro F1, a mean over the artifacts."""
    more, less = (  # each (repeat, 1 + draws)
        np.array([measure.mean_of({a: said[a] for a in artifacts})[:, MACRO_F1] for said in rows[each]])
        for each in pair
    )
    return np.asarray(more - less)


def _deviation(each: NDArray[np.float64]) -> str:
    return f"SD {each.std(ddof=1):.3f}" if len(each) > 1 else "one repeat"


def severity_f1(graded: Graded, measure: Measure) -> NDArray[np.float64]:
    """(1 + draws, 3): the F1 of each severity."""
    drawn = measure.confusions(graded)
    hits = np.diagonal(drawn, axis1=-2, axis2=-1)
    return share(2 * hits, drawn.sum(-1) + drawn.sum(-2))


def write_table(cells: Cells, out: Path) -> str:
    """Write the table as CSV; returns it as Markdown."""
    with out.open("w", newline="") as file:
        csv.writer(file).writerows(cells)
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|---" * len(cells[0]) + "|", *lines[1:]])
