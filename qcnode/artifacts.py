"""The seven artifacts, their severities, the scan planes, and the codes that name them: the one list of each."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple


class Concept(NamedTuple):
    """A coded concept (PS3.3 Section 8): value, coding scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


class Artifact(StrEnum):
    """What the ensemble grades, in the order and spelling of the LISA 2025 label table."""

    NOISE = "Noise"
    ZIPPER = "Zipper"
    POSITIONING = "Positioning"
    BANDING = "Banding"
    MOTION = "Motion"
    CONTRAST = "Contrast"
    DISTORTION = "Distortion"


class Severity(IntEnum):
    """LISA's scale: how much of the anatomy an artifact costs."""

    NONE = 0
    MODERATE = 1  # visible, structures readable
    SEVERE = 2  # structures cannot be told apart


class Plane(StrEnum):
    """The scan plane; the member's second head tells them apart in this order."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"

    @property
    def suffix(self) -> str:
        """The plane as LISA's file names write it: axi, cor, sag."""
        return self.value[:3]


PRIVATE_SCHEME = "99QCNODE"

# CID 6314 and 6316 where they have the artifact; the private scheme where no public code means just that.
ARTIFACT_CONCEPTS: dict[Artifact, Concept] = {
    Artifact.NOISE: Concept("130578", "DCM", "Poor SNR"),
    Artifact.ZIPPER: Concept("zipper", PRIVATE_SCHEME, "Zipper artifact"),
    Artifact.POSITIONING: Concept("RID11281", "RADLEX", "Suboptimal patient positioning"),
    Artifact.BANDING: Concept("banding", PRIVATE_SCHEME, "Banding artifact"),
    Artifact.MOTION: Concept("RID11423", "RADLEX", "Motion related artifact"),
    Artifact.CONTRAST: Concept("contrast", PRIVATE_SCHEME, "Poor tissue contrast or shading"),
    Artifact.DISTORTION: Concept("distortion", PRIVATE_SCHEME, "Geometric distortion"),
}

SEVERITY_CONCEPTS: dict[Severity, Concept] = {
    Severity.NONE: Concept("260413007", "SCT", "None"),
    Severity.MODERATE: Concept("6736007", "SCT", "Moderate"),
    Severity.SEVERE: Concept("24484000", "SCT", "Severe"),
}
