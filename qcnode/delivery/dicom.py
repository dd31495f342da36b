"""Documents to an archive or a console by C-STORE, and the C-ECHO that asks whether it is there."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AssociationSocket

from qcnode.config import Destination
from qcnode.delivery.outcome import ACCEPTED, UNTRIED, Answer, Outcome
from qcnode.errors import TransientError

CONNECTION_SECONDS = 10.0  # for the peer to take the connection, and to answer the association request
RESPONSE_SECONDS = 60.0  # for the peer to answer one C-STORE
REFUSED_TRANSFER = "The peer accepts no presentation context for the document's SOP class; enable it there."


def send(documents: Sequence[Path | bytes], destination: Destination, calling_ae: str) -> list[Outcome]:
    """Send Part 10 documents over one association; an outcome for each, in their order.

    When the association ends early, the document that was on its way is unreachable, those after it are untried.
    """
    datasets = [_read(document) for document in documents]
    outcomes = [outcome for outcome in datasets if isinstance(outcome, Outcome)]
    if len(outcomes) == len(datasets):
        return outcomes
    contexts = _contexts([dataset for dataset in datasets if isinstance(dataset, Dataset)])
    try:
        with _association(destination, calling_ae, contexts) as association:
            return [d if isinstance(d, Outcome) else _store(association, d) for d in datasets]
    except TransientError as error:
        answer = Answer.REFUSED if isinstance(error, _NoContextError) else Answer.UNREACHABLE
        return [d if isinstance(d, Outcome) else Outcome(answer, str(error)) for d in datasets]


def echo(destination: Destination, calling_ae: str) -> float:
    """Seconds until the destination answered a C-ECHO, the association counted; TransientError without an answer."""
    start = time.perf_counter()
    with _association(destination, calling_ae, [build_context(Verification)]) as association:
        status = association.send_c_echo()
        if "Status" not in status or status.Status != 0x0000:
            raise TransientError(f"{_named(destination)} did not answer the C-ECHO; see its log.")
    return time.perf_counter() - start


class _NoContextError(TransientError):
    """The peer was reached and takes none of what was proposed."""


def _read(document: Path | bytes) -> Dataset | Outcome:
    try:
        dataset = dcmread(document if isinstance(document, Path) else BytesIO(document))
    except OSError as error:
        return _unreadable(error.strerror)
    except InvalidDicomError:
        return _unreadable("no DICOM file")
    named = all(keyword in dataset for keyword in ("SOPClassUID", "SOPInstanceUID"))
    return dataset if named and "TransferSyntaxUID" in dataset.file_meta else _unreadable("no DICOM object")


def _unreadable(what: str | None) -> Outcome:
    return Outcome(Answer.REFUSED, f"The document cannot be read from the state folder ({what}); assess it again.")


def _contexts(datasets: Sequence[Dataset]) -> list[PresentationContext]:
    """One presentation context for each SOP class and encoding that cannot be rewritten on the way."""
    native = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)  # either may be sent as the other
    wanted = set()
    for dataset in datasets:
        syntax = dataset.file_meta.TransferSyntaxUID
        wanted.add((str(dataset.SOPClassUID), native if syntax in native else (syntax,)))
    return [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in sorted(wanted)]


class _Requestor(AE):
    """An AE whose connection is at hand: sent without Nagle's pauses, and closed for certain.

    pynetdicom leaves the socket open when the peer does not take the connection.
    """

    connection: socket.socket | None = None

    def _create_socket(self, *arguments: Any) -> AssociationSocket:
        made = super()._create_socket(*arguments)
        self.connection = made.socket
        if self.connection is not None:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def close(self) -> None:
        """Close the connection, if there was one."""
        if self.connection is not None:
            self.connection.close()


@contextmanager
def _association(
    destination: Destination, calling_ae: str, contexts: list[PresentationContext]
) -> Iterator[Association]:
    """An established association, released at the end; TransientError when it is not to be had."""
    ae = _Requestor(ae_title=calling_ae)
    ae.connection_timeout = ae.acse_timeout = CONNECTION_SECONDS
    ae.dimse_timeout = ae.network_timeout = RESPONSE_SECONDS
    with closing(ae):
        try:
            association = ae.associate(destination.host, destination.port, contexts, ae_title=destination.ae_title)
        except OSError as error:
            raise TransientError(f"{_named(destination)} has no address: {error.strerror}; check its host.") from error
        if not association.is_established:
            raise _not_established(association, destination)
        try:
            yield association
        finally:
            if association.is_established:
                association.release()
            association.join(CONNECTION_SECONDS)


def _not_established(association: Association, destination: Destination) -> TransientError:
    name = _named(destination)
    if association.is_rejected:
        primitive = association.acceptor.primitive
        why = getattr(primitive, "reason_str", "no reason given")
        return TransientError(f"{name} rejected the association: {why}; check the AE titles there.")
    if association.rejected_contexts:
        return _NoContextError(REFUSED_TRANSFER)
    return TransientError(f"{name} took no association; check that it runs, its host and its port.")


def _store(association: Association, dataset: Dataset) -> Outcome:
    if not association.is_established:
        return UNTRIED
    try:
        response = association.send_c_store(dataset)
    except ValueError:
        return Outcome(Answer.REFUSED, REFUSED_TRANSFER)
    except RuntimeError:  # the peer ended it since we looked
        return UNTRIED
    if "Status" not in response:
        association.abort()  # a late answer would be taken for the next document's
        return Outcome(Answer.UNREACHABLE, "The peer ended the association or fell silent; see its log.")
    return outcome_of(int(response.Status))


def outcome_of(status: int) -> Outcome:
    """What a C-STORE response status means for the document (PS3.4 Table B.2-1, PS3.7 Annex C)."""
    if status == 0x0000 or status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116):
        return ACCEPTED  # warnings: stored, with elements coerced or discarded
    if status & 0xFF00 == 0xA700:
        return Outcome(Answer.UNREACHABLE, f"The peer is out of resources (0x{status:04X}); make room there.")
    return Outcome(Answer.REFUSED, f"The peer refused the document (0x{status:04X}); see its log.")


def _named(destination: Destination) -> str:
    return f"{destination.ae_title} at {destination.host}:{destination.port}"
