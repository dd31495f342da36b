"""What the listener offers to an association: to store whatever is storage, in any syntax that can be decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydicom.pixels import get_decoder  # type: ignore[attr-defined]
from pydicom.uid import UID
from pynetdicom import (
    ALL_TRANSFER_SYNTAXES,
    PYNETDICOM_IMPLEMENTATION_UID,
    PYNETDICOM_IMPLEMENTATION_VERSION,
    build_context,
)
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, negotiate_as_acceptor
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from qcnode.intake import pdu

_STORAGE_BRANCH = "1.2.840.10008.5.1.4.1.1."  # where PS3.6 registers storage SOP classes, also those newer than pydicom

_APPLICATION_CONTEXT = UID("1.2.840.10008.3.1.1.1")  # PS3.7 Section A.2.1
_PDU_HEADER_BYTES = 6
_REMEMBERED_BYTES = 32_768  # of a request; 128 presentation contexts with two transfer syntaxes take 15 KB


@dataclass(frozen=True)
class Rejection:
    """An association that is not accepted: result, source and reason of PS3.8 Table 9-21."""

    result: int
    source: int
    reason: int
    why: str

    @property
    def pdu(self) -> bytes:
        """The A-ASSOCIATE-RJ."""
        return pdu.rejection(self.result, self.source, self.reason)


CALLING_AE_TITLE = Rejection(1, 1, 3, "calling AE title not recognised")
PEER_NETWORK = Rejection(1, 1, 3, "peer network not allowed")
CALLED_AE_TITLE = Rejection(1, 1, 7, "called AE title not recognised")
LOCAL_LIMIT = Rejection(2, 3, 2, "local limit exceeded")
DISK_FLOOR = Rejection(2, 3, 2, "the disk has too little free space")


@dataclass(frozen=True)
class Accepted:
    """The A-ASSOCIATE-AC, and the transfer syntax of each presentation context that it accepts."""

    pdu: bytes
    transfer_syntaxes: Mapping[int, str]


class Proposal:
    """An association request, and the answers to it that were made so far.

    Consoles propose the same for every instance, and coding a hundred presentation contexts takes longer than storing
    a slice: `proposal_of` gives the same proposal for the same bytes, which nobody changes.
    """

    def __init__(self, body: bytes) -> None:
        """From an A-ASSOCIATE-RQ without its header; a Violation where it is damaged."""
        request = A_ASSOCIATE_RQ()
        try:
            request.decode(bytes(_PDU_HEADER_BYTES) + body)
            self._request = request.to_primitive()
        except (AssertionError, ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error) as error:
            raise pdu.Violation("the association request is damaged", pdu.Abort.INVALID_PARAMETER) from error
        self.calling_ae, self.called_ae = str(self._request.calling_ae_title), str(self._request.called_ae_title)
        self._answers: dict[tuple[str | int | None, ...], Accepted] = {}

    def accepted(self, maximum_pdu_bytes: int, services: Sequence[PresentationContext]) -> Accepted:
        """The association with those of its presentation contexts that are for storage or for one of the services."""
        key = (maximum_pdu_bytes, *(service.abstract_syntax for service in services))
        if key not in self._answers:
            offered = [*services, *storage_contexts(self._request.presentation_context_definition_list)]
            self._answers[key] = _accepted(self._request, offered, maximum_pdu_bytes)
        return self._answers[key]


def proposal_of(body: bytes | bytearray) -> Proposal:
    """What the association request proposes; see Proposal."""
    whole = bytes(body)
    return _remembered(whole) if len(whole) <= _REMEMBERED_BYTES else Proposal(whole)


_remembered = lru_cache(maxsize=16)(Proposal)


def _accepted(request: A_ASSOCIATE, offered: list[PresentationContext], maximum_pdu_bytes: int) -> Accepted:
    results, _ = negotiate_as_acceptor(request.presentation_context_definition_list, offered)
    answer = A_ASSOCIATE()
    answer.application_context_name = _APPLICATION_CONTEXT
    answer.calling_ae_title = request.calling_ae_title
    answer.called_ae_title = request.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = results
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = maximum_pdu_bytes
    implementation.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = PYNETDICOM_IMPLEMENTATION_VERSION
    answer.user_information = [length, implementation, version]
    encoded = A_ASSOCIATE_AC()
    encoded.from_primitive(answer)
    accepted = {c.context_id: str(c.transfer_syntax[0]) for c in results if c.result == 0 and c.context_id is not None}
    return Accepted(encoded.encode(), accepted)


def decodable_transfer_syntaxes() -> frozenset[str]:
    """The transfer syntaxes whose pixels can be decoded with what is installed."""
    found = set()
    for uid in ALL_TRANSFER_SYNTAXES:
        try:
            if get_decoder(UID(uid)).is_available:
                found.add(str(uid))
        except NotImplementedError:  # registered, but pydicom has no decoder for it: video, JPIP
            continue
    return frozenset(found)


_DECODABLE = decodable_transfer_syntaxes()


def storage_contexts(proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
    """What we accept of a proposal: each storage SOP class, private ones too, in the peer's order of transfer syntaxes.

    The peer's order, because the peer knows what it holds: asked for another syntax it has to convert, and some refuse.
    """
    accepted: dict[str, list[str | UID]] = {}
    for context in proposed:
        if context.abstract_syntax is not None and is_storage(context.abstract_syntax):
            syntaxes = accepted.setdefault(context.abstract_syntax, [])
            syntaxes += [uid for uid in context.transfer_syntax if uid in _DECODABLE and uid not in syntaxes]
    return [build_context(uid, syntaxes) for uid, syntaxes in accepted.items() if syntaxes]


def is_storage(uid: UID) -> bool:
    """Whether instances of the SOP class are for storing."""
    return uid_to_service_class(uid) is StorageServiceClass or _is_unknown(uid)


def _is_unknown(uid: UID) -> bool:
    """Whether pynetdicom has no service for a class that can only be for storage: private, newer, or long retired."""
    return uid_to_service_class(uid) is ServiceClass and (uid.is_private or uid.startswith(_STORAGE_BRANCH))
