"""Documents and images to an archive or a console by C-STORE, and the C-ECHO that asks whether it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config, build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from qcnode.config import Destination
from qcnode.delivery.outcome import ACCEPTED, UNTRIED, Answer, Outcome
from qcnode.delivery.requestor import Requestor
from qcnode.errors import QcnodeError, TransientError

CONNECTION_SECONDS = 10.0  # for the peer to take the connection, and to answer the association request
RESPONSE_SECONDS = 60.0  # for the peer to answer one C-STORE
REFUSED_TRANSFER = "The peer accepts no presentation context for the document's SOP class; enable it there."
FELL_SILENT = "The peer ended the association or fell silent; see its log."
# A path that is given to pynetdicom goes out as it lies on disk, a piece at a time, instead of being decoded.
_config.STORE_SEND_CHUNKED_DATASET = True


@dataclass(frozen=True)
class Image:
    """A received image in the spool; what follows its file meta goes out byte for byte, or not at all."""

    path: Path
    sop_class_uid: str
    transfer_syntax_uid: str


def send(
    objects: Sequence[Path | bytes | Image],
    destination: Destination,
    calling_ae: str,
    enough: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Send documents (Part 10) and images over one association; an outcome for each, in their order.

    When the association ends early, the object that was on its way is `broken`, and those after it are untried; or
    unreachable, where the peer answered none. Once `enough` says so, the rest is untried.
    """
    ready = [_read(one) for one in objects]
    if all(isinstance(one, Outcome) for one in ready):
        return [one for one in ready if isinstance(one, Outcome)]
    try:
        with _association(destination, calling_ae, _contexts(ready)) as association:
            return _store_all(association, ready, enough)
    except _NoContextError:
        return [one if isinstance(one, Outcome) else _refused_transfer(one) for one in ready]
    except QcnodeError as error:
        return [one if isinstance(one, Outcome) else Outcome(Answer.UNREACHABLE, str(error)) for one in ready]


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


def _read(one: Path | bytes | Image) -> Dataset | Image | Outcome:
    """The document, ready to be encoded as the peer wants it; an image as it is; or why there is nothing to send."""
    if isinstance(one, Image):
        return one if one.path.is_file() else _unreadable("no such file")
    try:
        dataset = dcmread(one if isinstance(one, Path) else BytesIO(one))
    except OSError as error:
        return _unreadable(error.strerror)
    except InvalidDicomError:
        return _unreadable("no DICOM file")
    named = all(keyword in dataset for keyword in ("SOPClassUID", "SOPInstanceUID"))
    return dataset if named and "TransferSyntaxUID" in dataset.file_meta else _unreadable("no DICOM object")


def _unreadable(what: str | None) -> Outcome:
    return Outcome(
        Answer.REFUSED,
        f"It cannot be read from the state folder ({what}); send the series again, or have it graded again.",
    )


def _contexts(objects: Sequence[Dataset | Image | Outcome]) -> list[PresentationContext]:
    """One presentation context for each SOP class and encoding that is not rewritten on the way: 128 at the most."""
    native = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)  # a document may be sent as either
    wanted: set[tuple[str, tuple[str, ...]]] = set()
    for one in objects:
        if isinstance(one, Image):
            wanted.add((one.sop_class_uid, (one.transfer_syntax_uid,)))
        elif isinstance(one, Dataset):
            syntax = one.file_meta.TransferSyntaxUID
            wanted.add((str(one.SOPClassUID), native if syntax in native else (syntax,)))
    return [build_context(sop_class, list(syntaxes)) for sop_class, syntaxes in sorted(wanted)]


@contextmanager
def _association(
    destination: Destination, calling_ae: str, contexts: list[PresentationContext]
) -> Iterator[Association]:
    """An established association, released at the end; TransientError when it is not to be had.

    Raises ConfigError when the files for TLS do not fit.
    """
    ae = Requestor(calling_ae, destination)
    ae.connection_timeout = ae.acse_timeout = CONNECTION_SECONDS
    ae.dimse_timeout = ae.network_timeout = RESPONSE_SECONDS
    with closing(ae):
        try:
            association = ae.call(contexts)
        except OSError as error:
            raise TransientError(f"{_named(destination)} has no address: {error.strerror}; check its host.") from error
        if not association.is_established:
            raise _not_established(association, ae.tls_failure, destination)
        try:
            yield association
        finally:
            if association.is_established:
                association.release()
            association.join(CONNECTION_SECONDS)


def _not_established(association: Association, tls_failure: str | None, destination: Destination) -> TransientError:
    name = _named(destination)
    if tls_failure is not None:
        return TransientError(f"{name} and we found no TLS ({tls_failure}); check tls_ca, and the certificate there.")
    if association.is_rejected:
        primitive = association.acceptor.primitive
        why = getattr(primitive, "reason_str", "no reason given")
        return TransientError(f"{name} rejected the association: {why}; check the AE titles there.")
    if association.rejected_contexts:
        return _NoContextError(REFUSED_TRANSFER)
    certificate = ", and that it takes our certificate" if destination.tls else ""
    return TransientError(f"{name} took no association; check that it runs, its host and its port{certificate}.")


def _store_all(
    association: Association, objects: Sequence[Dataset | Image | Outcome], enough: Callable[[], bool]
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    tried = answered = False
    for one in objects:
        if isinstance(one, Outcome):
            outcomes.append(one)
        elif tried and (enough() or not association.is_established):
            outcomes.append(UNTRIED if answered else Outcome(Answer.UNREACHABLE, FELL_SILENT))
        else:
            outcomes.append(_store(association, one))
            tried, answered = True, answered or outcomes[-1].answer is not Answer.BROKEN
    return outcomes


def _store(association: Association, one: Dataset | Image) -> Outcome:
    try:
        response = association.send_c_store(one.path if isinstance(one, Image) else one)
    except ValueError:
        return _refused_transfer(one)
    except RuntimeError:  # the peer ended the association since we looked
        return Outcome(Answer.BROKEN, FELL_SILENT)
    except (OSError, InvalidDicomError, AttributeError) as error:  # of an image's file, read only now
        if not isinstance(one, Image):
            raise
        return _unreadable(type(error).__name__)
    if "Status" not in response:
        association.abort()  # a late answer would be taken for the next document's
        return Outcome(Answer.BROKEN, FELL_SILENT)
    return outcome_of(int(response.Status))


def _refused_transfer(one: Dataset | Image) -> Outcome:
    if isinstance(one, Image):
        syntax, sop_class = UID(one.transfer_syntax_uid).name, UID(one.sop_class_uid).name
        error = f"The peer does not take {sop_class} in {syntax}, and an image is sent as it came; enable that there."
        return Outcome(Answer.REFUSED, error)
    return Outcome(Answer.REFUSED, REFUSED_TRANSFER)


def outcome_of(status: int) -> Outcome:
    """What a C-STORE response status means for the object (PS3.4 Table B.2-1, PS3.7 Annex C)."""
    if status == 0x0000 or status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116):
        return ACCEPTED  # warnings: stored, with elements coerced or discarded
    if status & 0xFF00 == 0xA700:
        return Outcome(Answer.UNREACHABLE, f"The peer is out of resources (0x{status:04X}); make room there.")
    return Outcome(Answer.REFUSED, f"The peer refused it (0x{status:04X}); see its log.")


def _named(destination: Destination) -> str:
    return f"{destination.ae_title} at {destination.host}:{destination.port}"
