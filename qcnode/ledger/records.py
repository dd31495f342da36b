"""What goes into the ledger and what it hands out for work: plain values, free of any database session."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any

from qcnode.states import DeliveryState, StepState


class Change(Enum):
    """What became of a change to a performed procedure step."""

    DONE = auto()
    UNKNOWN = auto()  # nobody created the step
    TOO_LATE = auto()  # it has ended; nothing was changed


@dataclass(frozen=True)
class Received:
    """An instance that lies in the spool for good."""

    series_uid: str
    study_uid: str | None
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str  # hexadecimal, of the file
    size: int  # bytes
    received_at: datetime
    calling_ae: str
    facts: dict[str, Any]  # what completeness and the page need of the header, ready for JSON


@dataclass(frozen=True)
class StepReport:
    """What a modality says of a performed procedure step: which instances each of its series has. UIDs alone."""

    step_uid: str
    state: StepState | None  # None: as before
    series: Mapping[str, Collection[str]] | None  # SOP Instance UIDs by series UID; None: as before


@dataclass(frozen=True)
class Announced:
    """The instances that a series has by the word of the scanner, whose steps have ended."""

    sop_instance_uids: frozenset[str]
    at: datetime  # when the latest of the steps ended

    def missing(self, here: Collection[str]) -> frozenset[str]:
        """Those that are not here; none where it names nothing of what is here, as of objects converted on the way."""
        missing = self.sop_instance_uids.difference(here)
        return missing if len(missing) < len(self.sop_instance_uids) else frozenset()

    def names_any(self, here: Collection[str]) -> bool:
        """Whether it speaks of what is here at all."""
        return not self.sop_instance_uids.isdisjoint(here)


@dataclass(frozen=True)
class Receiving:
    """A series that still takes instances; while this is the same, so is all that completeness looks at."""

    series_uid: str
    revision: int
    calling_ae: str
    first_received_at: datetime
    last_received_at: datetime
    instances: int  # in the spool


@dataclass(frozen=True)
class Claim:
    """The right to assess one revision of a series; lost when the series moves on."""

    series_uid: str
    revision: int
    attempts: int  # this one counted
    study_uid: str | None
    calling_ae: str
    last_received_at: datetime
    sop_instance_uids: tuple[str, ...]  # those in the spool
    predecessor_uid: str | None  # the report that this revision's supersedes
    announced: Announced | None = None  # what the scanner's ended steps say of it


@dataclass(frozen=True)
class NewDocument:
    """A document to record: a DICOM file by class, UID and path in the state folder, or an alert by its text."""

    kind: str
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    path: str | None = None
    title: str | None = None
    body: str | None = None


@dataclass(frozen=True)
class Forwarding:
    """A destination that gets the received images themselves, but none that it sent.

    only_from: the AE titles whose images it gets; empty: of all.
    """

    destination: str
    ae_title: str  # its own
    only_from: tuple[str, ...] = ()


@dataclass(frozen=True)
class Forwarded:
    """How far the images of a series are on their way to one destination."""

    destination: str
    sent: int
    waiting: int
    dead: int  # those that nobody tries again until a person says so
    last_sent_at: datetime | None
    error: str | None  # the latest, of what is not sent

    @property
    def images(self) -> int:
        """How many it gets in all."""
        return self.sent + self.waiting + self.dead


@dataclass(frozen=True)
class Settlement:
    """What an attempt made of a delivery; PENDING: it is due again at `due_at`, `error` says why.

    refused: the destination answered, and the answer was no; or it broke the association off over this very object.
    """

    delivery_id: int
    state: DeliveryState
    error: str | None = None
    due_at: datetime | None = None
    refused: bool = False


@dataclass(frozen=True)
class DueDelivery:
    """A document, an alert or a received image whose turn to be sent has come."""

    id: int
    destination: str
    attempts: int  # made so far
    refusals: int  # of them, those that the destination refused
    series_uid: str
    kind: str
    sop_instance_uid: str | None
    path: str | None = None  # relative to the state folder; an image lies in the spool
    title: str | None = None
    body: str | None = None
    sop_class_uid: str | None = None
    transfer_syntax_uid: str | None = None  # of an image
