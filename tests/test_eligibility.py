"""Original MR images of a covered contrast are for assessment; anything else is excluded with its reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRColorImageStorage,
    MRSpectroscopyStorage,
    SecondaryCaptureImageStorage,
)

from qcnode.artifacts import Plane
from qcnode.config import ContrastRule, Eligibility
from qcnode.errors import Excluded
from qcnode.imaging.eligibility import check_eligible, contrast
from qcnode.imaging.phantom import classic_series, grid_affine, swoop_series
from qcnode.imaging.volume import Volume

RULES = Eligibility()
T2W = frozenset({"T2w"})


def volume() -> Volume:
    return Volume(np.zeros((4, 8, 8), np.float32), grid_affine(Plane.AXIAL))


def classic(**elements: object) -> Dataset:
    header = classic_series(volume(), patient_id="SECRET", generator=np.random.default_rng(1))[0]
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    return header


def swoop(acquisition_contrast: str = "T2") -> Dataset:
    generator = np.random.default_rng(1)
    return swoop_series(volume(), patient_id="SECRET", generator=generator, acquisition_contrast=acquisition_contrast)


def reason(*headers: Dataset, rules: Eligibility = RULES) -> str:
    with pytest.raises(Excluded) as caught:
        check_eligible(headers, rules, T2W)
    assert "SECRET" not in str(caught.value)
    assert str(caught.value).endswith(".")
    return str(caught.value)


def test_t2w_swoop_and_classic_series_are_for_assessment() -> None:
    check_eligible([swoop()], RULES, T2W)
    check_eligible([classic(), classic()], RULES, T2W)


@pytest.mark.parametrize(
    ("elements", "says"),
    [
        ({"Modality": "CT", "SOPClassUID": CTImageStorage}, "is CT, not MR"),
        ({"Modality": ""}, "is not MR"),
        ({"Modality": "SECRET NAME"}, "is not MR"),
        ({"SOPClassUID": EnhancedMRColorImageStorage}, "Enhanced MR Color Image Storage"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "Secondary Capture Image Storage"),
        ({"SOPClassUID": MRSpectroscopyStorage}, "Spectroscopy"),
        ({"SOPClassUID": "1.2.3"}, "another storage class"),
        ({"ImageType": ["DERIVED", "PRIMARY", "OTHER"]}, "derived"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "OTHER"]}, "made from other images"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]}, "diffusion map"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MIP"]}, "projection"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen save"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "mosaic"),
        ({"DiffusionBValue": 900.0}, "diffusion"),
        ({"SequenceName": "*ep_b1000#1"}, "diffusion"),
        ({"SeriesDescription": "DWI axial"}, "diffusion"),
        ({"SeriesDescription": "ep2d_diff_3scan"}, "diffusion"),
        ({"SeriesDescription": "Ax ADC"}, "diffusion map"),
        ({"SeriesDescription": "3-plane loc"}, "localizer"),
        ({"ProtocolName": "AAHead_Scout"}, "localizer"),
        ({"SeriesDescription": "T2 MPR cor"}, "reformat"),
        ({"BodyPartExamined": "KNEE"}, "shows the knee"),
    ],
)
def test_what_is_not_an_original_mr_image_is_excluded(elements: dict[str, object], says: str) -> None:
    assert says in reason(classic(), classic(**elements))


@pytest.mark.parametrize("description", ["T2 AXI", "T2_FA150", "diffuse lesion T2", "T2 local shim", "Allocation T2"])
def test_words_inside_other_words_exclude_nothing(description: str) -> None:
    check_eligible([classic(SeriesDescription=description)], RULES, T2W)


def test_a_diffusion_group_in_any_frame_excludes() -> None:
    header = swoop()
    item = Dataset()
    item.DiffusionBValue, item.DiffusionDirectionality = 0.0, "NONE"
    header.PerFrameFunctionalGroupsSequence[2].MRDiffusionSequence = [item]
    check_eligible([header], RULES, T2W)
    item.DiffusionBValue = 900.0
    assert "diffusion" in reason(header)


def test_a_derived_frame_type_excludes() -> None:
    header = swoop()
    header.SharedFunctionalGroupsSequence[0].MRImageFrameTypeSequence[0].FrameType = [
        "DERIVED",
        "PRIMARY",
        "ADC",
        "NONE",
    ]
    assert "diffusion map" in reason(header)


# --- contrast ---


@pytest.mark.parametrize(("value", "name"), [("T1", "T1w"), ("FLUID_ATTENUATED", "FLAIR")])
def test_acquisition_contrast_comes_first(value: str, name: str) -> None:
    header = swoop(value)
    assert contrast(header, RULES) == name
    assert reason(header) == f"The series is {name}; the ensemble grades T2w only."
    header.SeriesDescription = "T2"
    header.RepetitionTime, header.EchoTime = "2000", "160"
    assert contrast(header, RULES) == name


def silent(header: Dataset) -> Dataset:
    """The header without AcquisitionContrast."""
    del header.SharedFunctionalGroupsSequence[0].MRImageFrameTypeSequence[0].AcquisitionContrast
    return header


@pytest.mark.parametrize(("value", "name"), [("T1", "T1w"), ("T2", "T2w"), ("FLUID_ATTENUATED", "FLAIR")])
def test_timing_comes_second_and_from_the_functional_groups(value: str, name: str) -> None:
    header = silent(swoop(value))
    header.SeriesDescription = ""
    header.EchoTime = header.RepetitionTime = "1"  # top-level copies
    assert contrast(header, RULES) == name


def test_inversion_without_its_time_leaves_the_description_to_tell() -> None:
    header = classic(ScanningSequence=["SE", "IR"], RepetitionTime="4000", EchoTime="190", SeriesDescription="FLAIR T2")
    assert contrast(header, RULES) == "FLAIR"


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("T2 (AXI)", "T2w"),
        ("rc86_T2_axi_adv_rec", "T2w"),
        ("T1 gray/white", "T1w"),
        ("sag mprage", "T1w"),
        ("t2_flair", "FLAIR"),
        ("T2* GRE", None),
        ("something", None),
    ],
)
def test_the_description_comes_last(description: str, name: str | None) -> None:
    header = Dataset()
    header.SeriesDescription = description
    assert contrast(header, RULES) == name


def test_unknown_contrast_is_excluded_unless_the_site_says_otherwise() -> None:
    header = classic(RepetitionTime="", EchoTime=None, SeriesDescription="")
    assert "Nothing in the header tells" in reason(header)
    check_eligible([header], Eligibility(assess_unknown_contrast=True), T2W)


def test_a_sites_rules_replace_the_timing_rules() -> None:
    rules = Eligibility(timing=(ContrastRule(contrast="PDw", minimum_echo_time_ms=100),))
    assert contrast(classic(), rules) == "PDw"
    check_eligible([classic()], rules, {"PDw"})
    with pytest.raises(Excluded, match="grades FLAIR and T2w only"):
        check_eligible([classic()], rules, {"T2w", "FLAIR"})


def test_a_site_may_leave_out_a_contrast_that_the_weights_cover() -> None:
    rules, covered = Eligibility(contrasts=frozenset({"T1w"})), {"T1w", "T2w"}
    with pytest.raises(Excluded, match=r"is T2w, which eligibility\.contrasts leaves out"):
        check_eligible([classic()], rules, covered)
    check_eligible([classic()], Eligibility(contrasts=frozenset({"T2w"})), covered)
    with pytest.raises(Excluded, match="the ensemble grades T1w only"):
        check_eligible([classic()], Eligibility(contrasts=frozenset({"T2w"})), {"T1w"})


def test_a_series_that_names_no_study_cannot_be_reported() -> None:
    nameless = classic(StudyInstanceUID="")
    assert "names no study" in reason(nameless, nameless)
    check_eligible([nameless, classic()], RULES, T2W)  # one that names it is enough


# --- hostile headers ---

KEYWORDS = (
    "Modality",
    "SOPClassUID",
    "ImageType",
    "SeriesDescription",
    "ScanningSequence",
    "BodyPartExamined",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "DiffusionBValue",
    "AcquisitionContrast",
    "MRDiffusionSequence",
    "MREchoSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
VALUES = st.one_of(
    st.binary(max_size=8),
    st.text(max_size=8).map(str.encode),
    st.lists(st.sampled_from([b"", b"nan", b"inf", b"-1", b"ORIGINAL", b"2000", b"\xe9"]), max_size=4).map(b"\\".join),
)


VRS = st.sampled_from(["UN", "LO", "DS", "IS", "FD", "SQ", "CS"])


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(KEYWORDS), VRS, VALUES), max_size=5))
def test_odd_attributes_never_fail(changes: list[tuple[str, str, bytes]]) -> None:
    header = swoop()
    for keyword, vr, value in changes:
        tag = Tag(keyword)
        header[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)  # as read from a file, not yet decoded
    try:
        check_eligible([header], RULES, T2W)
    except Excluded as error:
        reason_given = str(error)
        assert changes, reason_given


# --- real data ---


@pytest.mark.real_data
@pytest.mark.parametrize("source", ["timing", "description"])
def test_real_swoop_sidecars_are_told_right(real_data: Path, source: str) -> None:
    """344 sidecars (times in seconds, as BIDS has them), by their timing alone and by their names alone."""
    told: Counter[bool] = Counter()
    for path in sorted((real_data / "ratings" / "hyperfine_ds006557_sidecars").glob("sub-*.json")):
        sidecar = json.loads(path.read_text())
        header = Dataset()
        if source == "timing":
            for keyword in ("EchoTime", "RepetitionTime", "InversionTime"):
                if keyword in sidecar:
                    setattr(header, keyword, f"{1000 * sidecar[keyword]:.8g}")
        else:
            header.SeriesDescription, header.ProtocolName = sidecar["SeriesDescription"], sidecar["ProtocolName"]
        told[contrast(header, RULES) == path.stem.rsplit("_", 1)[-1]] += 1
    print(f"{told[True]} of {told.total()} sidecars told right by {source}")
    assert told == {True: 344}


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("dicom2nifti_tests/hyperfine/anatomical/001/001.dcm", "is FLAIR; the ensemble grades T2w only"),
        ("dicom2nifti_tests/failing/gantrytilting/001/IM-0001-0001.dcm", "is CT"),
        ("dicom2nifti_tests/generic/rgb/001/IM-0001-0001-0001.dcm", "Secondary Capture"),
        ("enhanced_misc/Philips/IM_0027_fMAP.dcm", "phase"),
        ("transfer_syntaxes_one_image/1.dcm", "mosaic"),
        ("pydicom_mr/MR_small.dcm", "derived"),
        ("pydicom_data_mr/MR-SIEMENS-DICOM-WithOverlays.dcm", "reformat"),
    ],
)
def test_real_headers_are_excluded_for_the_right_reason(real_data: Path, path: str, says: str) -> None:
    assert says in reason(dcmread(real_data / "dicom" / path, stop_before_pixels=True))
