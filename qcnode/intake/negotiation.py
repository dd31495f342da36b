"""What the listener offers to an association: to store whatever is storage, in any syntax that can be decoded."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.pixels import get_decoder  # type: ignore[attr-defined]
from pydicom.uid import UID
from pynetdicom import ALL_TRANSFER_SYNTAXES, build_context
from pynetdicom.pdu_primitives import SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

STORAGE_SERVICE = UID("1.2.840.10008.4.2")  # PS3.4 Annex B
_STORAGE_BRANCH = "1.2.840.10008.5.1.4.1.1."  # where PS3.6 registers storage SOP classes, also those newer than pydicom


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


def service_of_unknown_classes(proposed: Iterable[PresentationContext]) -> dict[UID, SOPClassCommonExtendedNegotiation]:
    """Have unknown storage classes served as storage, as their sender could have asked (PS3.7 Section D.3.3.6)."""
    items: dict[UID, SOPClassCommonExtendedNegotiation] = {}
    for context in proposed:
        if context.abstract_syntax is not None and _is_unknown(context.abstract_syntax):
            item = SOPClassCommonExtendedNegotiation()
            item.sop_class_uid = context.abstract_syntax
            item.service_class_uid = STORAGE_SERVICE
            items[context.abstract_syntax] = item
    return items


def is_storage(uid: UID) -> bool:
    """Whether instances of the SOP class are for storing."""
    return uid_to_service_class(uid) is StorageServiceClass or _is_unknown(uid)


def _is_unknown(uid: UID) -> bool:
    """Whether pynetdicom has no service for a class that can only be for storage: private, newer, or long retired."""
    return uid_to_service_class(uid) is ServiceClass and (uid.is_private or uid.startswith(_STORAGE_BRANCH))
