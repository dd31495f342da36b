"""What members said of scans beside the truth → figures, as a record and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcnode.agreement import confusion, quadratic_kappa
from qcnode.artifacts import Artifact, Severity
from qcnode.ensemble.calibration import named
from qcnode.ensemble.runtime import Ensemble
from qcnode.ensemble.weights import Figures, Measured
from train import metrics
from train.dataset import Inputs
from train.progress import progress


@dataclass(frozen=True)
class Graded:
    """One artifact's probabilities (scan, severity) beside the true severities (scan,) and whose scans they are.

    emphasis: what each probability counts when a severity is named.
    """

    subjects: Sequence[str]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    emphasis: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def named(self) -> NDArray[np.int64]:
        """The severity that is named for each scan."""
        return named(self.probabilities, self.emphasis)

    def of(self, chosen: NDArray[np.int64]) -> Graded:
        """These scans' alone."""
        subjects = [self.subjects[index] for index in chosen]
        return replace(self, subjects=subjects, truth=self.truth[chosen], probabilities=self.probabilities[chosen])


def graded(ensemble: Ensemble, data: Inputs) -> dict[Artifact, Graded]:
    """What the ensemble says of these scans, one by one as the node grades them."""
    subjects = [scan.subject for scan in data.scans]
    said = [ensemble.grade(np.asarray(image, np.float32)) for image in progress(data.images, "evaluate")]
    emphasis = {entry.artifact: entry.emphasis for entry in ensemble.manifest.members}
    found = {artifact: np.array([grades[artifact].probabilities for grades in said]) for artifact in Artifact}
    return {
        artifact: Graded(subjects, data.labels[:, index], found[artifact], emphasis[artifact])
        for index, artifact in enumerate(Artifact)
    }


def figures(its: Graded) -> Figures:
    """How good the member is; intervals by subject."""
    none, moderate, severe = (int(n) for n in np.bincount(its.truth, minlength=3))

    def measured(figure: metrics.Figure) -> Measured:
        found = metrics.measured(figure, its.truth, its.named, its.subjects)
        return Measured(**{key: round(value, 3) for key, value in found.model_dump().items()})

    return Figures(
        subjects=len(set(its.subjects)),
        scans=len(its.truth),
        scans_by_severity=(none, moderate, severe),
        macro_f1=measured(metrics.macro_f1),
        majority_macro_f1=round(metrics.macro_f1(its.truth, metrics.majority(its.truth)), 3),
        balanced_accuracy=measured(metrics.balanced_accuracy),
        severe_recall=measured(metrics.severe_recall),
        quadratic_kappa=measured(quadratic_kappa),
        challenge_mean=round(float(np.mean(list(metrics.challenge_figures(its.truth, its.named).values()))), 3),
        calibration_error=round(metrics.calibration_error(its.probabilities, its.truth), 3),
    )


class OfGroup(NamedTuple):
    """How many scans a group has, of how many subjects, and macro F1 by artifact; None where a severity has no scan."""

    scans: int
    subjects: int
    macro_f1: dict[Artifact, Measured | None]


def by_group(of: Mapping[Artifact, Graded], groups: Sequence[Sequence[str]]) -> dict[str, OfGroup]:
    """Macro F1 of each group's scans, its intervals by subject. groups: those that each scan is in."""
    names = sorted({name for its in groups for name in its})
    members = {name: np.flatnonzero([name in its for its in groups]) for name in names}
    found = {}
    for name, chosen in members.items():
        its = {artifact: graded.of(chosen) for artifact, graded in of.items()}
        subjects = {subject for graded in its.values() for subject in graded.subjects}
        macro_f1 = {artifact: _macro_f1(graded) for artifact, graded in its.items()}
        found[name] = OfGroup(len(chosen), len(subjects), macro_f1)
    return found


def _macro_f1(its: Graded) -> Measured | None:
    if np.bincount(its.truth, minlength=len(Severity)).min() == 0:
        return None
    return metrics.measured(metrics.macro_f1, its.truth, its.named, its.subjects)


def record(of: Mapping[Artifact, Graded], groups: Sequence[Sequence[str]] = ()) -> dict[str, dict[str, object]]:
    """All figures by artifact, the challenge's fifteen among them, beside what naming the commonest severity gets.

    groups: as `by_group`'s, whose macro F1 stand there too.
    """
    groups_figures = by_group(of, groups)
    return {
        artifact.value: figures(its).model_dump(mode="json")
        | {
            "challenge": metrics.challenge_figures(its.truth, its.named),
            "majority_challenge": metrics.challenge_figures(its.truth, metrics.majority(its.truth)),
            "confusion": confusion(its.truth, its.named).astype(int).tolist(),
            "groups": {
                name: {
                    "scans": group.scans,
                    "subjects": group.subjects,
                    "macro_f1": f1.model_dump() if (f1 := group.macro_f1[artifact]) else None,
                }
                for name, group in groups_figures.items()
            },
        }
        for artifact, its in of.items()
    }


def table(of: Mapping[Artifact, Figures]) -> str:
    """The figures as a Markdown table, for the terminal and the model card."""
    rows = [
        "| artifact | macro F1 (95 %) | always the commonest | mean of 15 | severe found (95 %) | kappa "
        "| calibration error |",
        "|---|---|---|---|---|---|---|",
    ]
    for artifact, its in of.items():
        f1, severe, kappa = its.macro_f1, its.severe_recall, its.quadratic_kappa.value
        rows.append(
            f"| {artifact} | **{f1.value:.2f}** ({f1.low:.2f} – {f1.high:.2f}) | {its.majority_macro_f1:.2f} "
            f"| {its.challenge_mean:.2f} | {severe.value:.2f} ({severe.low:.2f} – {severe.high:.2f}) | {kappa:.2f} "
            f"| {its.calibration_error:.2f} |"
        )
    each = [(its.macro_f1.value, its.majority_macro_f1, its.challenge_mean) for its in of.values()]
    f1_mean, majority, fifteen = np.mean(each, axis=0)
    rows.append(f"| mean | **{f1_mean:.2f}** | {majority:.2f} | {fifteen:.2f} | | | |")
    return "\n".join(rows)


def group_table(of: Mapping[str, OfGroup]) -> str:
    """Macro F1 of each group and artifact with its interval, as a Markdown table; one subject alone has no interval."""
    artifacts = list(next(iter(of.values())).macro_f1)
    heads = ["macro F1 (95 %)", "scans (subjects)", *artifacts, "mean"]
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]

    def cell(f1: Measured | None, subjects: int) -> str:
        if f1 is None:
            return "–"
        return f"{f1.value:.2f}" + (f" ({f1.low:.2f} – {f1.high:.2f})" if subjects > 1 else "")

    for name, group in of.items():
        each = [group.macro_f1[artifact] for artifact in artifacts]
        cells = [cell(f1, group.subjects) for f1 in each]
        known = [f1.value for f1 in each if f1]
        mean = f"{np.mean(known):.2f}" if len(known) == len(each) else "–"
        rows.append(f"| {name} | {group.scans} ({group.subjects}) | {' | '.join(cells)} | {mean} |")
    return "\n".join(rows)


def confusion_table(of: Mapping[Artifact, Graded]) -> str:
    """How many scans of each true severity were called none, moderate and severe, as a Markdown table."""
    rows = ["| called none, moderate, severe | truly none | truly moderate | truly severe |", "|---|---|---|---|"]
    for artifact, its in of.items():
        cells = [", ".join(str(round(n)) for n in row) for row in confusion(its.truth, its.named)]
        rows.append(f"| {artifact} | {' | '.join(cells)} |")
    return "\n".join(rows)
