"""N-CREATE and N-SET of the Modality Performed Procedure Step SOP Class: the scanner's own word on what a series has.

Success is answered only when the ledger holds for good what was said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext

from qcnode.errors import PermanentError, TransientError, trail
from qcnode.intake.association import Answer
from qcnode.intake.dimse import Element, Field, Request
from qcnode.intake.facts import is_uid
from qcnode.intake.procedure_step import TRANSFER_SYNTAXES, Status, Unacceptable, read_report
from qcnode.intake.storing import part10_header
from qcnode.ledger.records import Change

if TYPE_CHECKING:  # what receives needs no database
    from qcnode.ledger.performed import PerformedSteps

log = logging.getLogger(__name__)

SOP_CLASS = "1.2.840.10008.3.1.2.3.3"
FIELDS = (Field.N_CREATE, Field.N_SET)
LARGEST_BYTES = 4_000_000  # of an attribute list; a step of 1000 images takes some 100 KB
TOO_LATE_ID = 0xA710  # Error ID of PS3.4 Table F.7.2-2

_TOO_LARGE = Answer(Status.RESOURCE_LIMITATION, "The step is larger than the node accepts.")
_NO_ROOM = Answer(Status.RESOURCE_LIMITATION, "The node has no room for it now; send it again later.")
_TOO_LATE = Answer(
    Status.PROCESSING_FAILURE, "Performed Procedure Step Object may no longer be updated", TOO_LATE_ID
)  # the standard's own words
_UNKNOWN = Answer(Status.NO_SUCH_SOP_INSTANCE, "Nobody created this step here; send its N-CREATE first.")
_KNOWN = Answer(Status.DUPLICATE_SOP_INSTANCE, "This step was created already.")


def context() -> PresentationContext:
    """What a listener that provides the service offers."""
    return build_context(SOP_CLASS, list(TRANSFER_SYNTAXES))


def refuse(size: int, *, has_room: bool) -> Answer | None:
    """The answer to what is too large, or has no room, before all of it is there."""
    if size > LARGEST_BYTES:
        return _TOO_LARGE
    return None if has_room else _NO_ROOM


class ProcedureSteps:
    """The service; `told` is called after each change to a step, from the association's thread."""

    def __init__(self, steps: PerformedSteps, told: Callable[[], None]) -> None:
        self._steps = steps
        self._told = told

    def perform(
        self, request: Request, transfer_syntax: str, data: Sequence[bytes | memoryview], calling_ae: str
    ) -> Answer:
        """Create or change a step."""
        begins = request.field == Field.N_CREATE
        step_uid = request.uid(Element.AFFECTED_SOP_INSTANCE_UID if begins else Element.REQUESTED_SOP_INSTANCE_UID)
        try:
            _check(request, step_uid, begins=begins)
            part10 = b"".join((part10_header(request, transfer_syntax, calling_ae), *data))
            report = read_report(part10, transfer_syntax, step_uid, begins=begins)
            if begins:
                return Answer(Status.SUCCESS) if self._steps.create(report, datetime.now(UTC)) else _KNOWN
            change = self._steps.change(report, datetime.now(UTC))
        except Unacceptable as error:
            log.warning("step_refused step=%s why=%r", step_uid if is_uid(step_uid) else "invalid", str(error))
            return Answer(error.status, str(error))
        except TransientError:
            log.warning("step_refused step=%s why='the ledger is locked or out of reach'", step_uid)
            return _NO_ROOM
        except PermanentError as error:
            log.error("step_refused step=%s why=%r where=%r", step_uid, type(error).__name__, trail(error))
            return Answer(Status.PROCESSING_FAILURE, "The node failed on it; see its log.")
        if change is Change.DONE:
            self._told()
            return Answer(Status.SUCCESS)
        return _UNKNOWN if change is Change.UNKNOWN else _TOO_LATE


def _check(request: Request, step_uid: str, *, begins: bool) -> None:
    sop_class = request.uid(Element.AFFECTED_SOP_CLASS_UID if begins else Element.REQUESTED_SOP_CLASS_UID)
    if sop_class != SOP_CLASS:
        raise Unacceptable(Status.NO_SUCH_SOP_CLASS, "The SOP Class has no such operation here.")
    if not is_uid(step_uid):
        raise Unacceptable(Status.INVALID_SOP_INSTANCE, "The request does not name the step by a UID.")
    if not request.has_data_set:
        raise Unacceptable(Status.PROCESSING_FAILURE, "The request has no data set; mend the sender.")
