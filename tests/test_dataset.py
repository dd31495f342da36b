"""The LISA layout: what is read, what is refused and in which words, and that inputs are made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lisa_folder import write_lisa_folder

from qcnode.artifacts import Artifact, Plane
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import INPUT_SHAPE, network_input
from qcnode.imaging.volume import volume_from_nifti
from train.dataset import Scan, cached_input, cached_mask, inputs, read_scans, subject_kinds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lisa")
    write_lisa_folder(path, subjects=2)
    return path


def edited(folder: Path, tmp_path: Path, old: str, new: str) -> Path:
    """The folder with one edit in its table."""
    for image in folder.glob("*.nii.gz"):
        (tmp_path / image.name).symlink_to(image)
    table = (folder / "labels.csv").read_text()
    assert old in table
    (tmp_path / "labels.csv").write_text(table.replace(old, new, 1))
    return tmp_path


def test_scans_carry_their_subject_plane_and_labels(folder: Path) -> None:
    scans = read_scans(folder)
    assert [scan.subject for scan in scans] == ["LISA_0001"] * 3 + ["LISA_0002"] * 3
    assert [scan.plane for scan in scans] == list(Plane) * 2
    assert [scan.labels[0] for scan in scans] == [1, 2, 0, 2, 0, 1]


def test_the_challenges_own_names_are_understood(folder: Path, tmp_path: Path) -> None:
    table = edited(folder, tmp_path, "LISA_0001_run-000_LF_axi", "LISA_VALIDATION_0007_LF_axi")
    (table / "LISA_0001_run-000_LF_axi.nii.gz").rename(table / "LISA_VALIDATION_0007_LF_axi.nii.gz")
    assert read_scans(table)[0].subject == "LISA_VALIDATION_0007"


@pytest.mark.parametrize("name", ["SITE_0001_axi.nii.gz", "SITE_0001_axi.nii", "LISA_0001_LF_axi.nii.gz"])
def test_a_copy_is_named_for_the_same_patient_and_plane(tmp_path: Path, name: str) -> None:
    def read(name: str) -> Scan:
        (tmp_path / name).touch()
        (tmp_path / "labels.csv").write_text(f"filename,{','.join(Artifact)}\n{name},0,0,0,0,0,0,0\n")
        return read_scans(tmp_path)[0]

    scan = read(name)
    copy = read(scan.copy_name(1))
    assert (scan.is_copy, copy.is_copy) == (False, True)
    assert (copy.subject, copy.plane) == (scan.subject, scan.plane)
    assert scan.copy_name(2) != copy.path.name


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("LISA_0001_run-001", "LISA_0009_run-001", "row 3.*LISA_0009_run-001_LF_cor.nii.gz is missing"),
        ("LF_axi.nii.gz,1", "LF_axi.nii.gz,3", r'row 2 \(LISA_0001.*Noise is "3"; write 0, 1 or 2'),
        ("LF_axi.nii.gz,1", "LF_axi.nii.gz,", 'Noise is ""'),
        ("LF_sag", "LF_obl", "row 4.*does not name a patient and a plane"),
        ("Motion", "Movement", r"labels\.csv row 1 has no column Motion; the columns are filename, Noise, "),
        ("LF_axi.nii.gz,1,1,1,1,1,1,1", "LF_axi.nii.gz,1", r'row 2 .*Zipper is ""; write 0, 1 or 2'),
        ("LISA_0001_run-000", "\n\nLISA_0009_run-000", "row 4: .*LISA_0009_run-000_LF_axi.nii.gz is missing"),
        (
            "LISA_0001_run-001_LF_cor",
            "LISA_0001_run-000_LF_axi",
            r"labels\.csv row 3: LISA_0001_run-000_LF_axi\.nii\.gz is in row 2 already; take one of the two out\.",
        ),
    ],
)
def test_a_faulty_row_is_named(folder: Path, tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_scans(edited(folder, tmp_path, old, new))


def test_a_folder_without_a_table_or_with_an_empty_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels\.csv cannot be read"):
        read_scans(tmp_path)
    (tmp_path / "labels.csv").touch()
    with pytest.raises(ConfigError, match=r"labels\.csv row 1 has no column filename"):
        read_scans(tmp_path)
    (tmp_path / "labels.csv").write_text(f"filename,{','.join(Artifact)}\n")
    with pytest.raises(ConfigError, match=r"labels\.csv has no rows; write one for each image"):
        read_scans(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_is_utf_8_with_or_without_a_spreadsheets_mark(folder: Path, tmp_path: Path, encoding: str) -> None:
    copy = edited(folder, tmp_path, "LISA_0001", "LISA_0001")
    (copy / "labels.csv").write_text((folder / "labels.csv").read_text(), encoding)
    assert [scan.labels for scan in read_scans(copy)] == [scan.labels for scan in read_scans(folder)]


@pytest.mark.parametrize(("encoding", "row"), [("latin-1", 3), ("utf-16", 1)])
def test_a_table_in_another_encoding_is_refused(folder: Path, tmp_path: Path, encoding: str, row: int) -> None:
    copy = edited(folder, tmp_path, "LISA_0001_run-001", "LISA_0001_Prüfung-001")
    (copy / "labels.csv").write_text((copy / "labels.csv").read_text(), encoding)
    with pytest.raises(ConfigError, match=rf"labels\.csv row {row} is not UTF-8; save the table as CSV in UTF-8\."):
        read_scans(copy)


def test_a_table_that_is_no_csv_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = edited(folder, tmp_path, "LISA_0001_run-001", "x" * 200_000)
    with pytest.raises(ConfigError, match=r"labels\.csv row 3 is not CSV \(field larger than"):
        read_scans(copy)


@pytest.mark.parametrize("is_image", [True, False])
def test_an_image_or_a_mask_that_cannot_be_read_is_named_with_its_row(
    folder: Path, tmp_path: Path, is_image: bool
) -> None:
    scan = read_scans(edited(folder, tmp_path, "LISA_0001", "LISA_0001"))[2]
    broken = scan.path if is_image else scan.mask_path
    broken.unlink(missing_ok=True)  # in the copy of the folder it is a link
    broken.write_bytes(b"no image")
    words = rf"labels\.csv row 4: \S+{broken.name} cannot be used: .*; check the file\.$"
    with pytest.raises(ConfigError, match=words):
        (cached_input if is_image else cached_mask)(scan, tmp_path / ".inputs")


def test_kinds_come_from_the_subjects_table(folder: Path, tmp_path: Path) -> None:
    scans = read_scans(folder)
    assert set(subject_kinds(tmp_path, scans).values()) == {""}
    (tmp_path / "subjects.csv").write_text("subject,kind\nLISA_0001,child\nLISA_0003,adult\n")
    assert subject_kinds(tmp_path, scans) == {"LISA_0001": "child", "LISA_0002": "", "LISA_0003": "adult"}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (b"name,kind\nLISA_0001,child\n", "row 1 has no column subject; the columns are subject, kind"),
        (b"subject;kind\nLISA_0001;child\n", "row 1 has no column subject"),
        (b"subject,age\nLISA_0001,4\n", "row 1 has no column kind"),
        (b"", "row 1 has no column subject"),
        ("subject,kind\nLISA_0001,child\nLISA_0002,bébé\n".encode("latin-1"), "row 3 is not UTF-8; save the table"),
    ],
)
def test_a_faulty_subjects_table_is_named(folder: Path, tmp_path: Path, table: bytes, words: str) -> None:
    (tmp_path / "subjects.csv").write_bytes(table)
    with pytest.raises(ConfigError, match=rf"subjects\.csv {words}"):
        subject_kinds(tmp_path, read_scans(folder))


def test_a_subject_without_a_cell_for_its_kind_is_of_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "subjects.csv").write_text("subject,kind\nLISA_0001\nLISA_0002,child\n")
    assert subject_kinds(tmp_path, read_scans(folder)) == {"LISA_0001": "", "LISA_0002": "child"}


def test_an_input_is_made_once_and_again_when_its_image_is_newer(folder: Path, tmp_path: Path) -> None:
    scan = read_scans(folder)[0]
    first = cached_input(scan, tmp_path)
    np.testing.assert_array_equal(first, network_input(volume_from_nifti(scan.path)).astype(np.float16))
    kept = next(tmp_path.rglob("*.npy"))
    stamp = kept.stat().st_mtime_ns
    cached_input(scan, tmp_path)
    assert kept.stat().st_mtime_ns == stamp
    scan.path.touch()
    cached_input(scan, tmp_path)
    assert kept.stat().st_mtime_ns > stamp


def test_a_part_of_the_inputs_holds_its_subjects_alone(folder: Path) -> None:
    scans = read_scans(folder)
    images = [np.full(INPUT_SHAPE, number, np.float16) for number in range(len(scans))]
    part = inputs(scans, images).of(["LISA_0002"])
    assert [int(image[0, 0, 0]) for image in part.images] == [3, 4, 5]
    assert part.labels[:, 0].tolist() == [2, 0, 1]
    assert part.planes.tolist() == [0, 1, 2]
