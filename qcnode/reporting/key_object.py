"""Key Object Selections: the recall flag, which the machine raises, and the rejection, which a person confirms."""

from __future__ import annotations

from typing import Any

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import (
    CodeContentItem,
    ContentSequence,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
    RelationshipTypeValues,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from qcnode.artifacts import Artifact, Concept
from qcnode.reporting.evidence import Evidence, plain
from qcnode.reporting.structured_report import coded, observer
from qcnode.verdict import Assessment, Decision, reason

_TITLE = Concept("113010", "DCM", "Quality Issue")
# It hides the images in archives that follow IHE IOCM: not a machine's to say.
_REJECTED = Concept("113001", "DCM", "Rejected for Quality Reasons")
_MODIFIER = Concept("113011", "DCM", "Document Title Modifier")

# CID 7011, whose other members speak of X-ray equipment.
_ANY_ARTIFACT = Concept("111207", "DCM", "Image artifact(s)")
_CAUSES: dict[Artifact, Concept] = {
    Artifact.MOTION: Concept("111210", "DCM", "Motion blur"),
    Artifact.POSITIONING: Concept("111209", "DCM", "Positioning"),
}


def recall_flag(assessment: Assessment, source: Evidence) -> Dataset:
    """The key object that asks for a repeat: titled Quality Issue, with the causes as title modifiers (TID 2010).

    For a `rescan` only; anything else is a ValueError, because a flag on a usable series recalls a child for nothing.
    """
    if assessment.verdict.decision is not Decision.RESCAN:
        raise ValueError(f"a recall flag is for rescan, not for {assessment.verdict.decision}")
    selection = KeyObjectSelection(
        document_title=coded(_TITLE),
        referenced_objects=source.references,
        observer_device_context=observer(source),
        description=plain("\n".join(assessment.verdict.reasons)),
    )
    placement = source.placement("flag", series_number=92)
    return _document(selection, assessment, source, "Image quality: repeat this scan", placement)


def rejection(assessment: Assessment, source: Evidence, by: str) -> Dataset:
    """The key object by which a person rejects the images for their quality, with the causes that the machine names.

    by: the account's name, as the person observer (TID 1003).
    """
    selection = KeyObjectSelection(
        document_title=coded(_REJECTED),
        referenced_objects=source.references,
        observer_person_context=ObserverContext(codes.DCM.Person, PersonObserverIdentifyingAttributes(f"{plain(by)}^")),
        observer_device_context=observer(source),
        description=plain("\n".join(assessment.verdict.reasons)),
    )
    placement = source.placement("rejection", series_number=94)
    return _document(selection, assessment, source, "Image quality: rejected", placement)


def _document(
    selection: KeyObjectSelection, assessment: Assessment, source: Evidence, description: str, placement: dict[str, Any]
) -> Dataset:
    content = selection[0].ContentSequence
    selection[0].ContentSequence = ContentSequence([*map(_modifier, causes(assessment)), *content])
    document: Dataset = KeyObjectSelectionDocument(
        evidence=source.references, content=selection, series_description=description, **placement
    )
    source.identify(document)
    return document


def causes(assessment: Assessment) -> tuple[Concept, ...]:
    """What made the policy ask for a repeat, in CID 7011's words, each once; the general word where none is known."""
    asking = (
        artifact
        for artifact, grade in assessment.grades.items()
        if reason(artifact, grade, Decision.RESCAN) in assessment.verdict.reasons
    )
    return tuple(dict.fromkeys(_CAUSES.get(artifact, _ANY_ARTIFACT) for artifact in asking)) or (_ANY_ARTIFACT,)


def _modifier(cause: Concept) -> Dataset:
    modifier: Dataset = CodeContentItem(
        name=coded(_MODIFIER), value=coded(cause), relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD
    )
    return modifier
