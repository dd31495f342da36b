"""How one attempt to deliver one document or image ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """The destination's word, or its silence."""

    ACCEPTED = "accepted"
    UNREACHABLE = "unreachable"  # nothing is wrong with the document: try again for long
    BROKEN = "broken"  # it was on its way when the association ended: try again for long, but let others go first
    REFUSED = "refused"  # the destination answered that it does not take this document: try a few times
    UNTRIED = "untried"  # the attempt ended before its turn came: still due


@dataclass(frozen=True)
class Outcome:
    """The answer, and, where it was not accepted, why in one sentence."""

    answer: Answer
    error: str = ""


ACCEPTED = Outcome(Answer.ACCEPTED)
UNTRIED = Outcome(Answer.UNTRIED)
