"""What a peer proposes is coded once, and answered by each listener as its own settings say."""

from __future__ import annotations

import pytest
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import build_context
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

from qcnode.intake.negotiation import Proposal, proposal_of
from qcnode.intake.pdu import Violation

VERIFICATION = "1.2.840.10008.1.1"


def proposed(calling_ae: str, contexts: int = 2) -> bytes:
    """An A-ASSOCIATE-RQ without its header: echo in the first context, MR in the others."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = calling_ae, "QCNODE"
    offered = [build_context(VERIFICATION)] + [build_context(MRImageStorage) for _ in range(contexts - 1)]
    for number, context in enumerate(offered):
        context.context_id = 2 * number + 1
    request.presentation_context_definition_list = offered
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16_384, "1.2.3"
    request.user_information = [length, implementation]
    encoded = A_ASSOCIATE_RQ()
    encoded.from_primitive(request)
    return encoded.encode()[6:]


def test_the_same_request_is_coded_once() -> None:
    known = proposal_of(bytearray(proposed("CONSOLE")))
    assert proposal_of(proposed("CONSOLE")) is known
    assert (known.calling_ae, known.called_ae) == ("CONSOLE", "QCNODE")
    assert proposal_of(proposed("OTHER")).calling_ae == "OTHER"


def test_an_answer_is_that_of_the_services_and_the_pdu_size_it_was_asked_for() -> None:
    proposal, echo = proposal_of(proposed("CONSOLE")), build_context(VERIFICATION)
    answer = proposal.accepted(16_384, [echo])
    assert answer.transfer_syntaxes == {1: ImplicitVRLittleEndian, 3: ImplicitVRLittleEndian}
    assert proposal.accepted(16_384, [echo]) is answer
    assert set(proposal.accepted(16_384, []).transfer_syntaxes) == {3}
    assert proposal.accepted(32_768, [echo]).pdu != answer.pdu


def test_a_large_or_damaged_request_is_not_remembered() -> None:
    large = proposed("CONSOLE", contexts=128) + bytes(4) * 10_000
    assert len(large) > 32_768
    with pytest.raises(Violation, match="damaged"):
        proposal_of(large)
    with pytest.raises(Violation, match="damaged"):
        proposal_of(proposed("CONSOLE")[:100])
    assert isinstance(Proposal(proposed("CONSOLE", contexts=128)), Proposal)
