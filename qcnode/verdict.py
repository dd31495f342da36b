"""Scores and policy → verdict. Pure: no I/O, no clock, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple

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


class Source(NamedTuple):
    """The instance that a slice is from, and its frame in it, from 1; None in an instance of one frame."""

    sop_instance_uid: str
    frame: int | None


@dataclass(frozen=True)
class Assessment:
    """All that is known of a series once it was looked at: what the documents, the ledger and the page are made from.

    `grades` holds all seven artifacts, or none when the verdict is not_assessable. `excluded` says why the series is
    not for assessment, else None. `preview` is an axial, a coronal and a sagittal section, uint8, isotropic pixels.
    `sources` says where each slice of the volume came from, in its order; empty where it did not come as DICOM.
    `pictures` are some of the slices that carry the worst grade, by their number, from 0, which `counted_from` begins.
    """

    verdict: Verdict
    series_uid: str | None = None
    plane: Plane | None = None
    grades: Mapping[Artifact, Grade] = field(default_factory=dict)
    ensemble: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    excluded: str | None = None
    preview: tuple[NDArray[np.uint8], ...] = ()
    sources: tuple[Source, ...] = ()
    pictures: Mapping[int, NDArray[np.uint8]] = field(default_factory=dict)
    counted_from: str = ""  # "the feet"


def worst_in_slices(scores: Scores) -> Artifact | None:
    """The artifact with the worst grade that a few slices carry; None where there is none such."""
    located = [artifact for artifact, grade in scores.items() if grade.slices]
    return max(
        located,
        key=lambda artifact: (scores[artifact].severity, scores[artifact].at_least(Severity.MODERATE)),
        default=None,
    )


def slice_ranges(slices: Sequence[int]) -> str:
    """Slices, from 0, as people count them: "slice 5", "slices 5-9, 12"."""
    runs = [list(run) for _, run in groupby(enumerate(sorted(slices)), lambda pair: pair[1] - pair[0])]
    named = [f"{run[0][1] + 1}" + (f"-{run[-1][1] + 1}" if len(run) > 1 else "") for run in runs]
    return f"slice{'s' if len(slices) > 1 else ''} {', '.join(named)}"


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
