"""Headers → whether a series is for assessment: original MR images of a contrast that the ensemble covers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal

import numpy as np
from pydicom import Dataset
from pydicom.uid import UID, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage, MRImageStorage

from qcnode.config import ContrastRule, Eligibility
from qcnode.errors import Excluded
from qcnode.imaging.stack import UNREADABLE

_MR_CLASSES = (MRImageStorage, EnhancedMRImageStorage, LegacyConvertedEnhancedMRImageStorage)

# AcquisitionContrast (PS3.3 C.8.13.3.1.3) → our names; UNKNOWN, MIXED and what the standard does not know tell nothing.
_CONTRASTS = {
    "T1": "T1w",
    "T2": "T2w",
    "FLUID_ATTENUATED": "FLAIR",
    "PROTON_DENSITY": "PDw",
    "T2_STAR": "T2*-weighted",
    "STIR": "STIR",
    "TOF": "time-of-flight angiography",
    "DIFFUSION": "diffusion imaging",
    "PERFUSION": "perfusion imaging",
    "FLOW_ENCODED": "flow imaging",
    "TAGGING": "tagged",
}

# Words in ImageType and FrameType (PS3.3 C.7.6.1.1.2, C.8.13.3.1.1, and what vendors put there), and what they mean.
_IMAGE_TYPES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"LOCALIZER", "SCOUT", "SURVEY"}), "is a localizer"),
    (frozenset({"ADC", "EADC", "TRACE", "TRACEW", "FA", "DIFFUSION_ANISO", "TENSOR"}), "is a diffusion map"),
    (frozenset({"DIFFUSION", "DIFFUSION_B0"}), "is diffusion imaging"),
    (
        frozenset({"MPR", "CSA MPR", "MIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE"}),
        "is a reformat or projection",
    ),
    (frozenset({"SCREEN SAVE", "SCREENSAVE", "SCREENSHOT"}), "is a screen save"),
    (
        frozenset({"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY"}),
        "holds phase or complex parts, not magnitude",
    ),
    (frozenset({"MOSAIC"}), "is a mosaic of several volumes"),
    (frozenset({"DERIVED"}), "is derived from other images"),
    (frozenset({"SECONDARY"}), "was made from other images"),
)
# The same in what people and protocols call a series; a letter or digit beside the word makes it another word.
_DESCRIPTIONS = (
    (r"local[iy][sz]er|scout|survey|(?<![a-z])loc(?![a-z])|(3|three).?plane", "is a localizer"),
    (r"(?<![a-z])(e?adc|fa|trace|tracew)(?![a-z0-9])", "is a diffusion map"),
    (r"(?<![a-z])(dwi|dti|diff|diffusion|hardi)(?![a-z])|ep2d.?diff|\*?ep_b\d", "is diffusion imaging"),
    (r"(?<![a-z])(mip|mpr|minip)(?![a-z])", "is a reformat or projection"),
    (r"screen.?(save|shot)", "is a screen save"),
)
# BodyPartExamined (PS3.16 Annex L) that no head scan would carry; what is not listed may be a head.
_OTHER_PARTS = (
    frozenset({"ABDOMEN", "BREAST", "CHEST", "HEART", "LIVER", "PELVIS", "PROSTATE"})
    | frozenset({"CSPINE", "TSPINE", "LSPINE", "SPINE", "SHOULDER", "ELBOW", "WRIST", "HAND"})
    | frozenset({"HIP", "KNEE", "ANKLE", "FOOT"})
)


def check_eligible(headers: Sequence[Dataset], rules: Eligibility, covered: Collection[str]) -> None:
    """Excluded, with the reason, unless every header is that of an original MR image of a covered contrast.

    covered: the contrasts that the ensemble grades, such as {"T2w"}. Odd or missing attributes tell nothing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd values; here they only tell nothing
        if not any(_text(header, "StudyInstanceUID") for header in headers):
            raise Excluded("The series names no study, so no report could be filed with it; mend the sender.")
        for header in headers:
            if why := _not_original_mr(header):
                raise Excluded(f"The series {why}.")
            _check_contrast(header, rules, covered)


def of_other_modality(modality: str) -> str | None:
    """What a series of another Modality than MR is, as the rest of a sentence; None for MR."""
    word = modality.upper()
    if word == "MR":
        return None
    return f"is {word}, not MR" if re.fullmatch(r"[A-Z]{2,16}", word) else "is not MR"


def contrast(header: Dataset, rules: Eligibility) -> str | None:
    """By AcquisitionContrast, else by the timing, else by the description; None when nothing tells."""
    for word in _words(header, "MRImageFrameTypeSequence", "AcquisitionContrast"):
        if word in _CONTRASTS:
            return _CONTRASTS[word]
    return _contrast_by_timing(header, rules.timing) or _contrast_by_description(header, rules)


def _check_contrast(header: Dataset, rules: Eligibility, covered: Collection[str]) -> None:
    name = contrast(header, rules)
    if name is None:
        if not rules.assess_unknown_contrast:
            raise Excluded("Nothing in the header tells the series' contrast; assess_unknown_contrast would grade it.")
    elif name not in covered:
        raise Excluded(f"The series is {name}; the ensemble grades {' and '.join(sorted(covered))} only.")
    elif rules.contrasts is not None and name not in rules.contrasts:
        raise Excluded(f"The series is {name}, which eligibility.contrasts leaves out.")


def _not_original_mr(header: Dataset) -> str | None:
    """What else the series is, as the rest of a sentence; None for original MR images."""
    if why := of_other_modality(_text(header, "Modality")):
        return why
    sop_class = UID(_text(header, "SOPClassUID"))
    if sop_class and sop_class not in _MR_CLASSES:
        kind = sop_class.name if sop_class.name != sop_class else "another storage class"
        return f"is {kind}, not MR images"
    types = set(_words(header, "MRImageFrameTypeSequence", "ImageType"))
    types |= set(_words(header, "MRImageFrameTypeSequence", "FrameType"))
    types |= set(_words(header, "MRImageFrameTypeSequence", "ComplexImageComponent"))
    for words, meaning in _IMAGE_TYPES:
        if words & types:
            return meaning
    if any(b > 0 for b in _numbers(header, "MRDiffusionSequence", "DiffusionBValue")) or {
        "DIRECTIONAL",
        "BMATRIX",
        "ISOTROPIC",
    } & set(_words(header, "MRDiffusionSequence", "DiffusionDirectionality")):
        return "is diffusion imaging"
    description = _description(header) + "\n" + _text(header, "SequenceName").lower()
    for pattern, meaning in _DESCRIPTIONS:
        if re.search(pattern, description):
            return meaning
    part = _text(header, "BodyPartExamined").upper()
    return f"shows the {part.lower()}, not the head" if part in _OTHER_PARTS else None


def _contrast_by_timing(header: Dataset, rules: Sequence[ContrastRule]) -> str | None:
    """The first rule that holds, the functional groups' times before top-level copies; all in ms."""
    echo = _first(header, ("MREchoSequence", "EffectiveEchoTime"), ("", "EchoTime"), ("", "EffectiveEchoTime"))
    repetition = _first(header, ("MRTimingAndRelatedParametersSequence", "RepetitionTime"), ("", "RepetitionTime"))
    inversion = _first(
        header, ("MRModifierSequence", "InversionTimes"), ("MRModifierSequence", "InversionTime"), ("", "InversionTime")
    )
    if inversion is None and "IR" in _words(header, "", "ScanningSequence"):
        return None  # inversion without its time: a FLAIR would pass for a T2w
    for rule in rules:
        if (
            _within(echo, rule.minimum_echo_time_ms, rule.maximum_echo_time_ms)
            and _within(repetition, rule.minimum_repetition_time_ms, rule.maximum_repetition_time_ms)
            and _within(inversion, rule.minimum_inversion_time_ms, rule.maximum_inversion_time_ms)
        ):
            return rule.contrast
    return None


def _within(value: float | None, minimum: float | None, maximum: float | None) -> bool:
    if minimum is None and maximum is None:
        return True
    return value is not None and (minimum is None or value >= minimum) and (maximum is None or value < maximum)


def _contrast_by_description(header: Dataset, rules: Eligibility) -> str | None:
    description = _description(header)
    for name, pattern in rules.description.items():
        if re.search(pattern, description, re.IGNORECASE):
            return name
    return None


def _description(header: Dataset) -> str:
    return "\n".join(_text(header, keyword).lower() for keyword in ("SeriesDescription", "ProtocolName"))


# Reading: a missing, empty, damaged or oddly typed element is as good as absent.


def _groups(header: Dataset, sequence: str) -> Iterator[Dataset]:
    """The functional group in each frame and in the shared item, then the top level; "" names the top level alone."""
    if sequence:
        for where in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
            for item in _items(header, where):
                yield from _items(item, sequence)
        yield from _items(header, sequence)
    yield header


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    value = _value(dataset, keyword)
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Sequence) else []


def _value(dataset: Dataset, keyword: str) -> object:
    try:
        return dataset.get(keyword)
    except UNREADABLE:
        return None


def _several(value: object) -> list[object]:
    """The values of an element of any multiplicity; bytes and nested datasets tell nothing here."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    return [v for v in values if isinstance(v, str | int | float | Decimal)]


def _text(dataset: Dataset, keyword: str) -> str:
    values = _several(_value(dataset, keyword))
    return str(values[0]).strip() if values else ""


def _words(header: Dataset, sequence: str, keyword: str) -> list[str]:
    """All values of the element, wherever it stands, in capitals."""
    return [
        str(value).strip().upper() for group in _groups(header, sequence) for value in _several(_value(group, keyword))
    ]


def _numbers(header: Dataset, sequence: str, keyword: str) -> list[float]:
    numbers = []
    for word in _words(header, sequence, keyword):
        try:
            number = float(word)
        except ValueError:
            continue
        if np.isfinite(number):
            numbers.append(number)
    return numbers


def _first(header: Dataset, *places: tuple[str, str]) -> float | None:
    """The first positive number at any of the places (sequence, keyword)."""
    return next((n for place in places for n in _numbers(header, *place) if n > 0), None)
