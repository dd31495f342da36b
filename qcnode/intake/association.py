"""One association from its connection to its end, as the acceptor (PS3.8 Section 9.2), in a thread of its own."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from qcnode.errors import TransientError
from qcnode.intake import dimse, pdu
from qcnode.intake.negotiation import Accepted, Proposal, Rejection, proposal_of
from qcnode.intake.transport import Connection, ConnectionEnded, PeerSilent

SUCCESS = 0x0000
UNRECOGNIZED_OPERATION = 0x0211  # PS3.7 Annex C.5.25

Ending = Literal["released", "aborted", "rejected"]


@dataclass(frozen=True)
class Limits:
    """What one association may take."""

    maximum_pdu_bytes: int
    request_seconds: float  # to begin an A-ASSOCIATE-RQ, to end it, and for a TLS handshake before it
    silence_seconds: float  # between messages, and for each PDU to come whole


@dataclass(frozen=True)
class Answer:
    """The status of a response, and why where it is a failure."""

    status: int
    comment: str = ""
    error_id: int | None = None


class Services(Protocol):
    """What the associations of one listener ask it; called from their threads."""

    def admit(self, association: Association, proposal: Proposal) -> Accepted | Rejection:
        """Whether, and with which presentation contexts, the association is accepted."""

    def established(self, association: Association) -> None:
        """Its A-ASSOCIATE-AC was sent."""

    def refuse(self, association: Association, request: dimse.Request, size: int) -> Answer | None:
        """Asked as the bytes of its data set come: an answer when no more of them are to be kept."""

    def perform(
        self, association: Association, request: dimse.Request, transfer_syntax: str, data: Sequence[memoryview]
    ) -> Answer:
        """Do what a whole message asks for."""

    def ended(self, association: Association, kind: Ending, why: str) -> None:
        """It is over, established or not, and about to be closed."""


@dataclass
class _Message:
    """What came so far of a message: its command set, then its data set."""

    context: int
    command: bytearray = field(default_factory=bytearray)
    request: dimse.Request | None = None
    data: list[memoryview] = field(default_factory=list)
    size: int = 0
    refused: Answer | None = None


class Association:
    """Serves one peer; nothing of what the peer says can make it wait or grow beyond its limits."""

    def __init__(
        self,
        connection: Connection,
        address: str,
        services: Services,
        limits: Limits,
        tls: ssl.SSLContext | None = None,
        number: int = 0,
    ) -> None:
        self.number = number  # of its connection, for the node
        self.address = address
        self.calling_ae = ""
        self.called_ae = ""
        self.is_established = False
        self._connection = connection
        self._services = services
        self._limits = limits
        self._tls = tls
        self._contexts: Mapping[int, str] = {}
        self._message: _Message | None = None
        self._stopping = False

    def serve(self) -> None:
        """From the first byte to the last; returns when the connection is closed."""
        kind: Ending = "aborted"
        why: str | None = None
        goodbye = True
        try:
            rejection = self._negotiate()
            if rejection is None:
                self._converse()
            kind, why = ("released", "") if rejection is None else ("rejected", rejection.why)
        except pdu.Violation as error:
            why = str(error)
            self._say(pdu.abort(error.reason))
        except PeerSilent as error:
            why = str(error)
            self._say(pdu.abort())
        except _PeerAbortedError:
            why = "the peer aborted"
        except ConnectionEnded as error:
            why, goodbye = "the node stopped" if self._stopping else str(error), False
        finally:
            if why is None:  # none of the above: the peer must not wait for an answer that will not come
                why = "the node failed; see its log"
                self._say(pdu.abort())
            try:
                self._services.ended(self, kind, why)
            finally:
                self._connection.close(goodbye=goodbye)

    def abort(self) -> None:
        """Abort from another thread, and let serve() come to its end."""
        self._stopping = True
        self._say(pdu.abort())
        self._connection.hang_up()

    def _negotiate(self) -> Rejection | None:
        """Receive the request and answer it; None when the association is established."""
        if self._tls is not None:
            self._connection.secure(self._tls, time.monotonic() + self._limits.request_seconds)
        kind, body = pdu.read(self._connection, 0, self._limits.request_seconds)
        if kind is pdu.Type.ABORT:
            raise _PeerAbortedError
        if kind is not pdu.Type.ASSOCIATE_RQ:
            raise pdu.Violation("it did not begin with an association request", pdu.Abort.UNEXPECTED_PDU)
        proposal = proposal_of(body)
        self.calling_ae, self.called_ae = proposal.calling_ae, proposal.called_ae
        answer = self._services.admit(self, proposal)
        if isinstance(answer, Rejection):
            self._connection.send(answer.pdu, self._deadline())
            return answer
        self.is_established = True
        self._contexts = answer.transfer_syntaxes
        self._connection.send(answer.pdu, self._deadline())
        self._services.established(self)
        return None

    def _converse(self) -> None:
        """Serve messages until the peer releases the association."""
        while True:
            kind, body = pdu.read(self._connection, self._limits.maximum_pdu_bytes, self._limits.silence_seconds)
            if kind is pdu.Type.DATA:
                for value in pdu.values(body):
                    self._take(*value)
            elif kind is pdu.Type.RELEASE_RQ:
                self._connection.send(pdu.release_reply(), self._deadline())
                return
            elif kind is pdu.Type.ABORT:
                raise _PeerAbortedError
            else:
                raise pdu.Violation(f"{kind.name} has no place in an association", pdu.Abort.UNEXPECTED_PDU)

    def _take(self, context: int, is_command: bool, is_last: bool, data: memoryview) -> None:
        """One presentation data value."""
        if context not in self._contexts:
            raise pdu.Violation("the presentation context was not accepted", pdu.Abort.INVALID_PARAMETER)
        message = self._message = self._message or _Message(context)
        if context != message.context or is_command is not (message.request is None):
            raise pdu.Violation("two messages are mixed up", pdu.Abort.INVALID_PARAMETER)
        if is_command:
            message.command += data
            if len(message.command) > dimse.LARGEST_COMMAND_BYTES:
                raise pdu.Violation("a command set does not end", pdu.Abort.INVALID_PARAMETER)
            if is_last:
                message.request = dimse.decode(message.command)
        else:
            message.size += len(data)
            if message.refused is None:
                message.data.append(data)
        if message.request is not None:
            if message.refused is None:
                message.refused = self._services.refuse(self, message.request, message.size)
                if message.refused is not None:
                    message.data.clear()
            if is_last and is_command is not message.request.has_data_set:
                self._message = None
                self._answer(message.request, message)

    def _answer(self, request: dimse.Request, message: _Message) -> None:
        if request.field == dimse.Field.C_CANCEL:
            return  # of what was answered already; it has no response
        syntax = self._contexts[message.context]
        answer = message.refused or self._services.perform(self, request, syntax, message.data)
        response = dimse.response(request, answer.status, answer.comment, answer.error_id)
        self._connection.send(pdu.data(message.context, response), self._deadline())

    def _deadline(self) -> float:
        return time.monotonic() + self._limits.silence_seconds

    def _say(self, data: bytes) -> None:
        """Tell a peer that may be gone."""
        with contextlib.suppress(ConnectionEnded):
            self._connection.send(data, time.monotonic() + 1.0)


class _PeerAbortedError(TransientError):
    """The peer sent an A-ABORT."""
