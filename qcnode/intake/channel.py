"""What the node and its receiving processes say to one another.

Orders go to a process over a Unix socket that keeps messages apart and takes a connection's descriptor along; what the
process has to tell comes back over a pipe, which gives out what was written to it even when its writer is dead.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from qcnode.config import Dicom
from qcnode.intake.association import Answer
from qcnode.intake.associations import AssociationEvent
from qcnode.intake.completeness import AssociationState
from qcnode.intake.dimse import Request
from qcnode.intake.storing import Received

LARGEST_ORDER_BYTES = 1 << 16


# Orders


@dataclass(frozen=True)
class Begin:
    """The first order: what to be."""

    settings: Dicom
    folder: Path
    process: int  # which of the node's, from 0
    processes: int
    offers_steps: bool
    log_level: int


@dataclass(frozen=True)
class Serve:
    """Serve the connection whose descriptor comes along."""

    number: int
    address: str
    tls: bool


@dataclass(frozen=True)
class Reply:
    """What was asked, answered; no answer where the node failed on it."""

    question: int
    answer: bool | Answer | None


@dataclass(frozen=True)
class Stop:
    """Let open associations come to their end, and end."""

    drain_seconds: float


Order = Begin | Serve | Reply | Stop


# What is told


@dataclass(frozen=True)
class Ready:
    """The process takes connections."""


@dataclass(frozen=True)
class Opening:
    """May there be one more association?"""

    question: int
    number: int


@dataclass(frozen=True)
class Step:
    """What does the ledger say to this N-CREATE or N-SET?"""

    question: int
    request: Request
    transfer_syntax: str
    data: bytes
    calling_ae: str


@dataclass(frozen=True)
class Arrived:
    """An instance is in the spool for good."""

    number: int
    one: Received


@dataclass(frozen=True)
class Ended:
    """An association is over."""

    number: int
    state: AssociationState


@dataclass(frozen=True)
class Happened:
    """For the log and the record."""

    number: int
    event: AssociationEvent


@dataclass(frozen=True)
class Left:
    """A connection is closed."""

    number: int


@dataclass(frozen=True)
class Logged:
    """A line for the node's log."""

    record: logging.LogRecord


News = Ready | Opening | Step | Arrived | Ended | Happened | Left | Logged
