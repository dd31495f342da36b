"""Scores and policy → verdict. Pure: no I/O, no clock, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from qcnode.artifacts import Artifact, Plane, Severity


class Decision(StrEnum):
    """The verdict in one word, from best to worst."""

    ACCEPT = "accept"
    REVIEW = "review"
    RESCAN = "rescan"
    NOT_ASSESSABLE = "not_assessable"


@dataclass(frozen=True)
class Grade:
    """One member's score of one artifact: the severity, and the probability of severities 0, 1 and 2.

    slices: those of the volume, from 0, that carry the grade; empty where it is the whole scan's, None where nobody
    looked for them, as for the severity none.
    """

    severity: Severity
    probabilities: tuple[float, float, float]
    slices: tuple[int, ...] | None = None

    def at_least(self, severity: Severity) -> float:
        """The probability that the artifact is this severe or worse."""
        return sum(self.probabilities[severity:])


Scores = Mapping[Artifact, Grade]


@dataclass(frozen=True)
class Condition:
    """Holds when the grade reaches `severity`; with `probability`, when P(severity or worse) reaches that instead."""

    severity: Severity
    probability: float | None = None

    def holds(self, grade: Grade) -> bool:
        """Whether this grade meets the condition."""
        if self.probability is None:
            return grade.severity >= self.severity
        return grade.at_least(self.severity) >= self.probability


@dataclass(frozen=True)
class Rule:
    """When an artifact asks for a look (`review`) and when for a repeat (`rescan`); None never does."""

    review: Condition | None = Condition(Severity.MODERATE)
    rescan: Condition | None = Condition(Severity.SEVERE)

    def decide(self, grade: Grade) -> Decision:
        """What this artifact alone would mean for the series."""
        if self.rescan is not None and self.rescan.holds(grade):
            return Decision.RESCAN
        if self.review is not None and self.review.holds(grade):
            return Decision.REVIEW
        return Decision.ACCEPT


Policy = Mapping[Artifact, Rule]
DEFAULT_POLICY: Policy = {artifact: Rule() for artifact in Artifact}


@dataclass(frozen=True)
class Verdict:
    """Policy's word on a series, and why, in sentences for the technologist."""

    decision: Decision
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Assessment:
    """All that is known of a series once it was looked at: what the documents, the ledger and the page are made from.

    `grades` holds all seven artifacts, or none when the verdict is not_assessable. `excluded` says why the series is
    not for assessment, else None. `preview` is an axial, a coronal and a sagittal section, uint8, isotropic pixels,
    in colour where the slices that carry the worst artifact are marked.
    `noise` is the noise over the head's signal, where the background tells it.
    """

    verdict: Verdict
    series_uid: str | None = None
    plane: Plane | None = None
    grades: Mapping[Artifact, Grade] = field(default_factory=dict)
    ensemble: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    excluded: str | None = None
    preview: tuple[NDArray[np.uint8], ...] = ()
    noise: float | None = None


# What a colleague would say at the bedside: the artifact as it reads in a sentence, and what to do before a repeat.
_ADVICE: dict[Artifact, tuple[str, str]] = {
    Artifact.NOISE: ("noise", "check the coil's fit and its cable first"),
    Artifact.ZIPPER: ("zipper lines", "switch off or move electrical devices near the scanner first"),
    Artifact.POSITIONING: ("mispositioning", "centre and straighten the head first"),
    Artifact.BANDING: ("banding", "check the coil and keep metal away from the scanner first"),
    Artifact.MOTION: ("motion", "settle the child first"),
    Artifact.CONTRAST: ("loss of contrast or shading", "check the sequence and the coil's fit first"),
    Artifact.DISTORTION: ("distortion", "remove metal from the head and the bed, and centre the head first"),
}
_SEVERITY_WORD = {Severity.NONE: "Signs of", Severity.MODERATE: "Moderate", Severity.SEVERE: "Severe"}


def reason(artifact: Artifact, grade: Grade, decision: Decision) -> str:
    """Why this artifact asks for a look or a repeat: "Severe motion. Repeat this scan; settle the child first."."""
    name, advice = _ADVICE[artifact]
    todo = f"Repeat this scan; {advice}." if decision is Decision.RESCAN else "Look before the child leaves the table."
    return f"{_SEVERITY_WORD[grade.severity]} {name}. {todo}"


def verdict(scores: Scores, policy: Policy = DEFAULT_POLICY) -> Verdict:
    """The worst that any artifact asks for, with the reasons of those that ask for anything, worst first.

    An artifact that the policy does not name follows the default rule: severe → rescan, moderate → review.
    """
    decisions = {artifact: policy.get(artifact, Rule()).decide(grade) for artifact, grade in scores.items()}
    asking = [(artifact, d) for artifact, d in decisions.items() if d is not Decision.ACCEPT]
    if not asking:
        return Verdict(Decision.ACCEPT, ("No artifact that matters. Go on.",))
    asking.sort(key=lambda item: (item[1] is not Decision.RESCAN, -scores[item[0]].severity))
    return Verdict(asking[0][1], tuple(reason(artifact, scores[artifact], d) for artifact, d in asking))


def worst(severities: Mapping[Artifact, int]) -> Artifact | None:
    """The artifact of the worst severity, the first of several in their order; None where all are none."""
    flawed = [artifact for artifact in Artifact if severities.get(artifact)]
    return max(flawed, key=lambda artifact: severities[artifact], default=None)


def in_words(slices: Sequence[int]) -> str:
    """Slices, counted from 0, as people count them: "slices 12–18 and 20"; "the whole scan" where there are none."""
    if not slices:
        return "the whole scan"
    spans: list[list[int]] = []
    for number in sorted(slices):
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    *others, last = [f"{span[0] + 1}–{span[-1] + 1}" if len(span) > 1 else f"{span[0] + 1}" for span in spans]
    return f"{'slices' if len(slices) > 1 else 'slice'} {', '.join(others)}{' and ' if others else ''}{last}"


def of_a_part(said: Verdict, missing: int, announced: int) -> Verdict:
    """The verdict where instances are missing that the scanner announced: nobody goes on without a look."""
    if not missing:
        return said
    why = f"{missing} of {announced} instances that the scanner announced did not arrive. Send the series again."
    if said.decision is Decision.ACCEPT:
        return Verdict(Decision.REVIEW, (why,))
    return Verdict(said.decision, (*said.reasons, why))


def not_assessable(why: str) -> Verdict:
    """The verdict for a series without grades; `why` is a sentence."""
    return Verdict(Decision.NOT_ASSESSABLE, (why,))
