"""The states of a series and of a delivery, and the moves between them."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum


class State(StrEnum):
    """Where a series stands; a gerund means somebody is at work."""

    RECEIVING = "receiving"  # instances may still arrive
    READY = "ready"  # complete, or quiet long enough; may be claimed
    ASSESSING = "assessing"  # claimed; recover() returns it to READY
    ASSESSED = "assessed"  # scores, verdict, documents and deliveries were stored together
    EXCLUDED = "excluded"  # not for assessment, with the reason
    FAILED = "failed"  # a permanent error, or its attempts are used up


# A late instance moves any state back to RECEIVING and raises the revision.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.RECEIVING: frozenset({State.RECEIVING, State.READY, State.EXCLUDED}),
    State.READY: frozenset({State.RECEIVING, State.ASSESSING}),
    State.ASSESSING: frozenset({State.RECEIVING, State.READY, State.ASSESSED, State.EXCLUDED, State.FAILED}),
    State.ASSESSED: frozenset({State.RECEIVING, State.READY}),
    State.EXCLUDED: frozenset({State.RECEIVING, State.READY}),
    State.FAILED: frozenset({State.RECEIVING, State.READY}),
}

FINAL = (State.ASSESSED, State.EXCLUDED)  # nobody need do anything more


class StepState(StrEnum):
    """How far a modality's performed procedure step is: Performed Procedure Step Status (PS3.3 Section C.4.14)."""

    IN_PROGRESS = "IN PROGRESS"  # created by N-CREATE; N-SET may change it
    COMPLETED = "COMPLETED"  # final: what it says of its series is all there will be
    DISCONTINUED = "DISCONTINUED"  # final too: broken off, and its series are as long as they are


class DeliveryState(StrEnum):
    """Where one document's way to one destination stands."""

    PENDING = "pending"  # due at its due_at; a failure moves due_at on
    SENT = "sent"  # the destination accepted it
    DEAD = "dead"  # its attempts are used up, or the destination refuses it for good; `qcnode retry` revives it


MAX_ATTEMPTS = 3  # of one revision's assessment, before the series is FAILED
# Before the second attempt and before the third: a full disk or a killed process has some minutes to come right.
ATTEMPT_PAUSES = (timedelta(seconds=10), timedelta(minutes=5))
# No pause is longer. What is due further off was put there by a clock that has been set back since: it is due.
LONGEST_PAUSE = timedelta(minutes=15)
