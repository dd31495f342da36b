"""What else a console may send to a real node: other classes, hostile names, damaged files. Nothing stops the node."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from peers import NodeProcess, storescu
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    ComprehensiveSRStorage,
    CTImageStorage,
    EncapsulatedPDFStorage,
    EnhancedMRColorImageStorage,
    MRSpectroscopyStorage,
    RTPlanStorage,
    SecondaryCaptureImageStorage,
)
from senders import all_finished, data_set, files, outcome, send_bytes, spooled, stored, storescu_as_it_is, swoop

from qcnode.imaging.swoop import classic_series, to_bytes
from qcnode.imaging.volume import Volume
from qcnode.states import State
from qcnode.verdict import Decision

PRIVATE_CLASS = UID("1.2.826.0.1.3680043.10.999.1")
MARKUP = "<script>alert(1)</script>"


def as_class(ds: Dataset, sop_class: UID, modality: str) -> Dataset:
    """The object under another SOP class."""
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.Modality = modality
    return ds


def without_pixels(ds: Dataset) -> Dataset:
    """The object as a document is: no image."""
    for keyword in ("PixelData", "Rows", "Columns", "NumberOfFrames", "PerFrameFunctionalGroupsSequence"):
        delattr(ds, keyword)
    return ds


def pdf(ds: Dataset) -> Dataset:
    ds = without_pixels(as_class(ds, EncapsulatedPDFStorage, "DOC"))
    ds.MIMETypeOfEncapsulatedDocument, ds.EncapsulatedDocument = "application/pdf", b"%PDF-1.4\n%%EOF\n"
    return ds


# name → how it is made of a Swoop object, and what its reason says
OTHERS: dict[str, tuple[Callable[[Dataset], Dataset], str]] = {
    "CT": (lambda ds: as_class(ds, CTImageStorage, "CT"), "is CT, not MR"),
    "report": (lambda ds: without_pixels(as_class(ds, ComprehensiveSRStorage, "SR")), "is SR, not MR"),
    "plan": (lambda ds: without_pixels(as_class(ds, RTPlanStorage, "RTPLAN")), "is RTPLAN, not MR"),
    "PDF": (pdf, "is DOC, not MR"),
    "capture": (lambda ds: as_class(ds, SecondaryCaptureImageStorage, "MR"), "is Secondary Capture Image Storage"),
    "colour": (lambda ds: as_class(ds, EnhancedMRColorImageStorage, "MR"), "is Enhanced MR Color Image Storage"),
    "spectroscopy": (lambda ds: without_pixels(as_class(ds, MRSpectroscopyStorage, "MR")), "is MR Spectroscopy"),
    "private": (lambda ds: as_class(ds, PRIVATE_CLASS, "MR"), "is another storage class, not MR"),
}


def test_what_is_not_an_mr_image_is_acknowledged_kept_and_excluded_with_its_reason(
    node: NodeProcess, clean_head: Volume, tmp_path: Path
) -> None:
    small = Volume(clean_head.array[:2], clean_head.affine)
    made = {name: make(swoop(small, 100 + i)) for i, (name, (make, _)) in enumerate(OTHERS.items())}
    paths = files(tmp_path, *made.values())
    done = storescu_as_it_is(node.port, paths, tmp_path)
    assert stored(done) == len(paths), done.stderr
    ended = all_finished(node, (ds.SeriesInstanceUID for ds in made.values()))
    for path, (name, ds) in zip(paths, made.items(), strict=True):
        series = ended[ds.SeriesInstanceUID]
        assert series.state is State.EXCLUDED, (name, outcome(series))
        assert re.search(OTHERS[name][1], str(series.reason)), (name, outcome(series))
        assert dcmread(spooled(node, path)).SOPInstanceUID == ds.SOPInstanceUID


def test_names_with_markup_reach_neither_page_nor_log_as_they_are(
    node: NodeProcess, clean_head: Volume, tmp_path: Path
) -> None:
    name = f"{MARKUP}^\"'&<b>"
    ds = swoop(clean_head, 120, PatientName=name, SeriesDescription=MARKUP, ProtocolName="../../x")
    ds.SeriesInstanceUID = UID("1.2." + "3" * 60)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID("1.2." + "4" * 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that the standard does not allow make libraries quote them
        ds.PatientBirthDate, ds.PatientID, ds.StudyID = "SECRET-DATE", "../../SECRET-ID", f"{MARKUP}{'x' * 60}"
        paths = files(tmp_path, ds)
    assert storescu(node.port, *paths).returncode == 0
    series = node.finished(ds.SeriesInstanceUID)
    assert series.state is State.ASSESSED, series.reason
    assert series.latest is not None
    assert series.latest.decision is not Decision.NOT_ASSESSABLE, series.latest.reasons
    for page in ("/", f"/series/{ds.SeriesInstanceUID}"):
        assert MARKUP.encode() not in node.get(page)
    assert "<script>" not in node.log
    assert "SECRET" not in node.log
    [path] = [document.path for document in series.latest.documents if document.kind == "report"]
    assert path is not None
    assert str(dcmread(node.state / path).PatientName) == name


@pytest.mark.parametrize(
    ("place", "hostile"),
    [
        *(("SOPInstanceUID", uid) for uid in ("../../../../../tmp/qcnode-was-here", "1.2/../../3", "..", ".")),
        *(("SeriesInstanceUID", uid) for uid in ("../../../../../tmp/qcnode-was-here", "1.2\\3", "..", "")),
    ],
)
def test_a_uid_that_could_name_a_path_is_refused(
    node: NodeProcess, clean_head: Volume, tmp_path: Path, place: str, hostile: str
) -> None:
    ds = swoop(Volume(clean_head.array[:2], clean_head.affine), 130)
    uid = str(ds[place].value)
    data = to_bytes(ds).replace(uid.encode(), hostile.encode().ljust(len(uid), b"\0"))
    before = {path for path in node.folder.rglob("*") if path.suffix in (".dcm", ".partial")}
    [answer] = send_bytes(node.port, files(tmp_path, data))
    assert answer.Status & 0xF000 == 0xC000, hex(answer.Status)
    assert "UID" in answer.ErrorComment
    assert {path for path in node.folder.rglob("*") if path.suffix in (".dcm", ".partial")} == before


def damaged(head: Volume) -> dict[str, tuple[str, bytes]]:
    """Name → (series UID, what is left of a file)."""
    found: dict[str, tuple[str, bytes]] = {}

    def add(name: str, seed: int, spoil: Callable[[bytes], bytes]) -> None:
        ds = swoop(head, seed)
        found[name] = (str(ds.SeriesInstanceUID), spoil(to_bytes(ds)))

    def cut_before(keyword: bytes) -> Callable[[bytes], bytes]:
        return lambda data: data[: data.index(keyword)]

    pixels, frames = b"\xe0\x7f\x10\x00OW", b"\x00\x52\x30\x92SQ"
    add("pixels cut", 140, lambda data: data[: len(data) * 6 // 10])
    add("one byte short", 141, lambda data: data[:-1])
    add("no pixels", 142, cut_before(pixels))
    add("cut in the frames' positions", 143, lambda data: data[: data.index(frames) + 700])
    add("cut before the series UID", 144, cut_before(b"\x20\x00\x0e\x00UI"))
    add("cut in an element's length", 145, lambda data: data[: data.index(b"\x20\x00\x0e\x00UI") + 5])
    add("nothing but the file meta", 146, lambda data: data[: len(data) - len(data_set(data))])
    noise = np.random.default_rng(147).bytes(2000)
    add("noise", 147, lambda data: data[: len(data) - len(data_set(data))] + noise)
    add("zeros", 148, lambda data: data[: len(data) - len(data_set(data))] + bytes(2000))
    endless = pixels + b"\0\0\xf0\xff\xff\xff"
    add("a length of 4 GB", 149, lambda data: data[: data.index(pixels)] + endless + bytes(9000))
    return found


def test_damaged_files_are_refused_in_words_or_not_assessable_and_the_node_goes_on(
    node: NodeProcess, clean_head: Volume, tmp_path: Path
) -> None:
    cases = damaged(clean_head)
    answers = dict(
        zip(cases, send_bytes(node.port, files(tmp_path, *(data for _, data in cases.values()))), strict=True)
    )
    taken = {name for name, answer in answers.items() if answer.Status == 0x0000}
    for name in cases.keys() - taken:
        assert answers[name].Status & 0xF000 in (0xC000, 0xA000), (name, hex(answers[name].Status))
        assert answers[name].ErrorComment, name
    assert {
        "pixels cut",
        "one byte short",
        "no pixels",
    } <= taken  # whole headers: kept, and a verdict says what is wrong
    ended = all_finished(node, (cases[name][0] for name in taken))
    for name in taken:
        assert outcome(ended[cases[name][0]]).startswith("not_assessable"), (name, outcome(ended[cases[name][0]]))

    [good] = files(tmp_path, swoop(clean_head, 150))
    assert storescu(node.port, good).returncode == 0
    assert outcome(node.finished(str(dcmread(good).SeriesInstanceUID))).split(":")[0] in ("accept", "review", "rescan")


def test_one_damaged_slice_is_said_in_the_series_verdict(node: NodeProcess, clean_head: Volume, tmp_path: Path) -> None:
    slices = [to_bytes(ds) for ds in classic_series(clean_head, patient_id="CUT", generator=np.random.default_rng(151))]
    slices[5] = slices[5][:-2000]
    paths = files(tmp_path, *slices)
    assert [answer.Status for answer in send_bytes(node.port, paths)] == [0x0000] * len(paths)
    said = outcome(node.finished(str(dcmread(paths[0]).SeriesInstanceUID)))
    assert said.startswith("not_assessable"), said
    assert "slice 6 of 36" in said
