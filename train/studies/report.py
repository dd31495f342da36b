"""What members said of scans beside the truth → figures, as a record and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcnode.agreement import Labels, Weights, confusion, quadratic_kappa
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

    def calibration_error(truth: Labels, _: Labels, weights: Weights | None) -> float:
        return metrics.calibration_error(its.probabilities, truth, weights)

    challenge = _measured(metrics.challenge_mean, its)
    calibration = _measured(calibration_error, its, centred=True)
    return Figures(
        subjects=len(set(its.subjects)),
        scans=len(its.truth),
        scans_by_severity=(none, moderate, severe),
        macro_f1=_measured(metrics.macro_f1, its),
        majority_macro_f1=round(metrics.macro_f1(its.truth, metrics.majority(its.truth)), 3),
        balanced_accuracy=_measured(metrics.balanced_accuracy, its),
        severe_recall=_measured(metrics.severe_recall, its),
        quadratic_kappa=_measured(quadratic_kappa, its),
        challenge_mean=challenge.value,
        challenge_mean_interval=(challenge.low, challenge.high),
        calibration_error=calibration.value,
        calibration_error_interval=(calibration.low, calibration.high),
    )


def macro_f1s(of: Mapping[Artifact, Graded]) -> dict[Artifact, Measured]:
    """Macro F1 alone, as `figures` has it: a baseline's, to stand beside the members'."""
    return {artifact: _measured(metrics.macro_f1, its) for artifact, its in of.items()}


def _measured(figure: metrics.Figure, its: Graded, *, centred: bool = False) -> Measured:
    found = metrics.measured(figure, its.truth, its.named, its.subjects, centred=centred)
    return Measured(**{key: round(value, 3) for key, value in found.model_dump().items()})


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


def record(
    of: Mapping[Artifact, Graded],
    groups: Sequence[Sequence[str]] = (),
    forests: Mapping[Artifact, Measured] | None = None,
) -> dict[str, dict[str, object]]:
    """All figures by artifact, the challenge's fifteen among them, beside what naming the commonest severity gets.

    groups: as `by_group`'s, whose macro F1 stand there too. forests: the macro F1 of those of image-quality metrics.
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
        | ({"forest_macro_f1": forests[artifact].model_dump()} if forests else {})
        for artifact, its in of.items()
    }


def tables(
    of: Mapping[Artifact, Graded], groups: Sequence[Sequence[str]], forests: Mapping[Artifact, Measured] | None = None
) -> str:
    """What `record` has, as Markdown tables, for the terminal."""
    all_figures = table({artifact: figures(its) for artifact, its in of.items()}, forests)
    return "\n\n".join([all_figures, group_table(by_group(of, groups)), confusion_table(of)])


def table(of: Mapping[Artifact, Figures], forests: Mapping[Artifact, Measured] | None = None) -> str:
    """The figures as two Markdown tables, for the terminal and the model card: macro F1 beside baselines', the others.

    One subject alone has no interval. forests: the macro F1 of those of image-quality metrics, if they are to stand
    there.
    """
    f1 = [["artifact", "macro F1 (95 %)", *(["forest of metrics (95 %)"] if forests else []), "always the commonest"]]
    others = [["artifact", "mean of 15 (95 %)", "severe found (95 %)", "kappa (95 %)", "calibration error (95 %)"]]
    for artifact, its in of.items():
        told = partial(_told, subjects=its.subjects)
        forest = [told(forests[artifact])] if forests else []
        f1.append([artifact, told(its.macro_f1, bold=True), *forest, f"{its.majority_macro_f1:.2f}"])
        challenge = _with_interval(its.challenge_mean, its.challenge_mean_interval, its.subjects)
        calibration = _with_interval(its.calibration_error, its.calibration_error_interval, its.subjects)
        others.append([artifact, challenge, told(its.severe_recall), told(its.quadratic_kappa), calibration])
    each = [(its.macro_f1.value, its.majority_macro_f1, its.challenge_mean) for its in of.values()]
    f1_mean, majority, fifteen = np.mean(each, axis=0)
    forest = [f"{np.mean([forests[artifact].value for artifact in of]):.2f}"] if forests else []
    f1.append(["mean", f"**{f1_mean:.2f}**", *forest, f"{majority:.2f}"])
    others.append(["mean", f"{fifteen:.2f}", "", "", ""])
    return f"{markdown(f1)}\n\n{markdown(others)}"


def group_table(of: Mapping[str, OfGroup]) -> str:
    """Macro F1 of each group and artifact with its interval, as a Markdown table; one subject alone has no interval."""
    artifacts = list(next(iter(of.values())).macro_f1)
    rows = [["macro F1 (95 %)", "scans (subjects)", *artifacts, "mean"]]
    for name, group in of.items():
        each = [group.macro_f1[artifact] for artifact in artifacts]
        known = [f1.value for f1 in each if f1]
        cells = [_told(f1, group.subjects) if f1 else "–" for f1 in each]
        mean = f"{np.mean(known):.2f}" if len(known) == len(each) else "–"
        rows.append([name, f"{group.scans} ({group.subjects})", *cells, mean])
    return markdown(rows)


def confusion_table(of: Mapping[Artifact, Graded]) -> str:
    """How many scans of each true severity were called none, moderate and severe, as a Markdown table."""
    rows = [["called none, moderate, severe", "truly none", "truly moderate", "truly severe"]]
    for artifact, its in of.items():
        cells = [", ".join(str(round(n)) for n in row) for row in confusion(its.truth, its.named)]
        rows.append([artifact, *cells])
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned, to be read on a terminal; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]])


def _told(its: Measured, subjects: int, *, bold: bool = False) -> str:
    return _with_interval(its.value, (its.low, its.high), subjects, bold=bold)


def _with_interval(value: float, interval: tuple[float, float] | None, subjects: int, *, bold: bool = False) -> str:
    told = f"**{value:z.2f}**" if bold else f"{value:z.2f}"
    if interval is None or subjects == 1:
        return told
    return f"{told} ({interval[0]:z.2f} – {interval[1]:z.2f})"
