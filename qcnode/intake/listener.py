"""The listener: C-ECHO and C-STORE SCP. Success is answered only for what a power cut can no longer lose.

It refuses an association before any presentation context is looked at, with the reasons that PS3.8 Table 9-21 offers:

- called AE title not recognised: another one than ours, where the configuration asks for ours;
- calling AE title not recognised: one that is not listed, and equally a peer from outside the listed networks, as
  PS3.8 has no reason that names an address;
- local limit exceeded (transient): more associations than allowed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from typing import Literal, cast

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from qcnode.config import Dicom
from qcnode.errors import PermanentError, trail
from qcnode.intake.completeness import AssociationState
from qcnode.intake.facts import DataSetMismatch, Facts, is_uid, read_facts
from qcnode.intake.negotiation import service_of_unknown_classes, storage_contexts
from qcnode.intake.spool import Outcome, Receipt, Spool
from qcnode.intake.transport import PromptAssociationServer

log = logging.getLogger(__name__)

# pynetdicom's documented switch; its own log of PDUs and data sets would hold patient data.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.WARNING)

# C-STORE status codes, PS3.4 Table B.2-1
SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
UNEXPECTED = 0xC001

VERIFICATION = "1.2.840.10008.1.1"
_PERMANENT, _SERVICE_USER, _CALLING_AE_TITLE_NOT_RECOGNISED = 0x01, 0x01, 0x03  # PS3.8 Table 9-21
_REJECTIONS = {  # by result, source and reason
    "1, 1, 3": "calling AE title not recognised",
    "1, 1, 7": "called AE title not recognised",
    "2, 3, 2": "local limit exceeded",
}
_REMEMBERED_SERIES = 4096

Kind = Literal["established", "released", "aborted", "rejected"]


@dataclass(frozen=True)
class Received:
    """An instance that is in the spool for good, and who sent it when."""

    facts: Facts
    receipt: Receipt
    calling_ae: str
    at: datetime


@dataclass(frozen=True)
class AssociationEvent:
    """What became of an association, for the record."""

    kind: Kind
    calling_ae: str
    called_ae: str
    address: str
    at: datetime
    reason: str = ""  # of a rejection


class Associations:
    """Which series came over which association, and how that ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Association, set[str]] = {}
        self._ended: OrderedDict[str, AssociationState] = OrderedDict()

    def carries(self, association: Association, series_uid: str) -> None:
        """An instance of the series arrived over this association."""
        with self._lock:
            self._open.setdefault(association, set()).add(series_uid)

    def ended(self, association: Association, state: AssociationState) -> None:
        """The association is over; its series remember how, until so many others came that nobody asks any more."""
        with self._lock:
            self._close(association, state)

    def state(self, series_uid: str) -> AssociationState:
        """OPEN while any association that carried the series is open, else how the latest one ended."""
        with self._lock:
            for association in [each for each in self._open if not each.is_alive()]:
                self._close(association, AssociationState.ABORTED)  # its thread died without a word
            if any(series_uid in carried for carried in self._open.values()):
                return AssociationState.OPEN
            return self._ended.get(series_uid, AssociationState.UNKNOWN)

    def _close(self, association: Association, state: AssociationState) -> None:
        for series_uid in self._open.pop(association, ()):
            self._ended[series_uid] = state
            self._ended.move_to_end(series_uid)
        while len(self._ended) > _REMEMBERED_SERIES:
            self._ended.popitem(last=False)


class Listener:
    """Receives instances into the spool; `received` and `on_event` are called from its threads and must not block."""

    def __init__(
        self,
        settings: Dicom,
        spool: Spool,
        received: Callable[[Received], None],
        on_event: Callable[[AssociationEvent], None] = lambda event: None,
    ) -> None:
        self.associations = Associations()
        self._settings = settings
        self._spool = spool
        self._received = received
        self._on_event = on_event
        self._server: PromptAssociationServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that it listens on, also where the configuration left the choice to the system."""
        return int(self._server.server_address[1]) if self._server is not None else self._settings.port

    def start(self) -> None:
        """Listen; OSError when the address is taken."""
        settings = self._settings
        ae = AE(ae_title=settings.ae_title)
        ae.require_called_aet = settings.require_called_ae_title
        ae.require_calling_aet = list(settings.calling_ae_titles)
        ae.maximum_associations = settings.maximum_associations
        ae.maximum_pdu_size = settings.maximum_pdu_bytes
        ae.network_timeout = settings.network_timeout_seconds
        ae.acse_timeout = min(30.0, settings.network_timeout_seconds)
        ae.dimse_timeout = settings.network_timeout_seconds
        server = ae.make_server(
            (settings.host, settings.port),
            contexts=[build_context(VERIFICATION)],
            evt_handlers=[
                (evt.EVT_REQUESTED, self._requested),
                (evt.EVT_SOP_COMMON, lambda event: service_of_unknown_classes(_proposed(event.assoc))),
                (evt.EVT_ESTABLISHED, self._established),
                (evt.EVT_RELEASED, self._released),
                (evt.EVT_ABORTED, self._aborted),
                (evt.EVT_REJECTED, self._rejected),
                (evt.EVT_C_STORE, self._on_store),
            ],
            server_class=PromptAssociationServer,
        )
        self._server = cast(PromptAssociationServer, server)
        serve, polling = self._server.serve_forever, (0.1,)  # seconds until it notices stop()
        self._thread = threading.Thread(target=serve, args=polling, name="dicom-listener", daemon=True)
        self._thread.start()
        log.info("listener_started ae=%r host=%s port=%d", settings.ae_title, settings.host, self.port)

    def stop(self, drain_seconds: float = 5.0) -> None:
        """Accept nobody new, give open associations this long to come to their end, then abort what is left."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        deadline = time.monotonic() + drain_seconds
        for association in self._server.active_associations:
            association.join(max(0.0, deadline - time.monotonic()))
            if association.is_alive():
                association.abort()
        self._server = self._thread = None
        log.info("listener_stopped ae=%r", self._settings.ae_title)

    def _requested(self, event: evt.Event) -> None:
        """Refuse a peer from elsewhere; to any other, offer to store what it proposes.

        Storage is offered here and only here, so that nothing can be stored over an association that was not checked.
        """
        association = event.assoc
        if not self._is_near(_address(association)):
            association.acse.send_reject(_PERMANENT, _SERVICE_USER, _CALLING_AE_TITLE_NOT_RECOGNISED)
            self._tell("rejected", association, "peer network not allowed")
            association.kill()
            return
        offered = storage_contexts(_proposed(association))
        association.acceptor.supported_contexts = [build_context(VERIFICATION), *offered]

    def _is_near(self, address: str) -> bool:
        peer = ip_address(address)
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        networks = self._settings.peer_networks
        return not networks or any(peer.version == network.version and peer in network for network in networks)

    def _established(self, event: evt.Event) -> None:
        self._tell("established", event.assoc)

    def _released(self, event: evt.Event) -> None:
        self.associations.ended(event.assoc, AssociationState.RELEASED)
        self._tell("released", event.assoc)

    def _aborted(self, event: evt.Event) -> None:
        self.associations.ended(event.assoc, AssociationState.ABORTED)
        self._tell("aborted", event.assoc)

    def _rejected(self, event: evt.Event) -> None:
        answer = cast(A_ASSOCIATE, event.assoc.acceptor.primitive)
        reason = f"{answer.result}, {answer.result_source}, {answer.diagnostic}"
        self._tell("rejected", event.assoc, _REJECTIONS.get(reason, reason))

    def _tell(self, kind: Kind, association: Association, reason: str = "") -> None:
        request = cast(A_ASSOCIATE, association.requestor.primitive)
        happened = AssociationEvent(
            kind,
            calling_ae=str(request.calling_ae_title),
            called_ae=str(request.called_ae_title),
            address=_address(association),
            at=datetime.now(UTC),
            reason=reason,
        )
        log.info(
            "association_%s calling=%r called=%r address=%s%s",
            *(kind, happened.calling_ae, happened.called_ae, happened.address, f" reason={reason!r}" if reason else ""),
        )
        self._on_event(happened)

    def _on_store(self, event: evt.Event) -> int | Dataset:
        """Answer Success only when a power cut can no longer lose the instance (PS3.4 Table B.2-1)."""
        requested = event.file_meta.MediaStorageSOPInstanceUID
        sop = requested if is_uid(requested) else "invalid"
        try:
            self._keep(event)
        except DataSetMismatch as error:
            log.warning("instance_refused sop=%s why=%s", sop, error)
            return _failure(DATA_SET_MISMATCH, str(error))
        except PermanentError as error:
            log.warning("instance_refused sop=%s why=%s", sop, error)
            return _failure(CANNOT_UNDERSTAND, str(error))
        except OSError as error:
            log.error("instance_refused sop=%s why=%r where=%r", sop, error.strerror, trail(error))
            return _failure(OUT_OF_RESOURCES, "The node cannot write it now; send it again later.")
        except Exception as error:  # whatever it is, the sender must not take the instance for safe
            log.error("instance_refused sop=%s why=%s where=%r", sop, type(error).__name__, trail(error))
            return _failure(UNEXPECTED, "The node failed on this instance; see its log.")
        return SUCCESS

    def _keep(self, event: evt.Event) -> None:
        calling_ae = str(cast(A_ASSOCIATE, event.assoc.requestor.primitive).calling_ae_title)
        data = part10(event, calling_ae)
        facts = read_facts(data)
        receipt = self._spool.put(data, facts.series_instance_uid, facts.sop_instance_uid)
        self.associations.carries(event.assoc, facts.series_instance_uid)
        if receipt.outcome is Outcome.CONFLICT:
            log.warning("instance_conflict series=%s sop=%s", facts.series_instance_uid, facts.sop_instance_uid)
        if facts.data_set_sop_instance_uid is not None:
            log.warning("instance_renamed series=%s sop=%s", facts.series_instance_uid, facts.sop_instance_uid)
        self._received(Received(facts, receipt, calling_ae, datetime.now(UTC)))


def part10(event: evt.Event, calling_ae: str) -> bytes:
    """A Part 10 file of the data set, byte for byte as it came, its sender in the file meta (PS3.10 Section 7.1)."""
    meta = event.file_meta
    if calling_ae:
        meta.SourceApplicationEntityTitle = calling_ae
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    buffer.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(buffer, meta)
    return buffer.getvalue() + event.encoded_dataset(include_meta=False)


def _address(association: Association) -> str:
    info = association.requestor.address_info
    return info.address if info is not None else ""


def _proposed(association: Association) -> list[PresentationContext]:
    return cast(A_ASSOCIATE, association.requestor.primitive).presentation_context_definition_list


def _failure(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = comment[:64]  # LO
    return answer
