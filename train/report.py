"""What members said of scans beside the truth → figures, as a record and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcnode.agreement import quadratic_kappa
from qcnode.artifacts import Artifact
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


def record(of: Mapping[Artifact, Graded]) -> dict[str, dict[str, object]]:
    """All figures by artifact, the challenge's fifteen among them, beside what naming the commonest severity gets."""
    return {
        artifact.value: figures(its).model_dump(mode="json")
        | {
            "challenge": metrics.challenge_figures(its.truth, its.named),
            "majority_challenge": metrics.challenge_figures(its.truth, metrics.majority(its.truth)),
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
