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
from train.dataset import Scan, cached_input, inputs, read_scans, subject_kinds


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
        ("Motion", "Movement", "no column Motion"),
    ],
)
def test_a_faulty_row_is_named(folder: Path, tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_scans(edited(folder, tmp_path, old, new))


def test_a_folder_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels\.csv cannot be read"):
        read_scans(tmp_path)


def test_kinds_come_from_the_subjects_table(folder: Path, tmp_path: Path) -> None:
    scans = read_scans(folder)
    assert set(subject_kinds(tmp_path, scans).values()) == {""}
    (tmp_path / "subjects.csv").write_text("subject,kind\nLISA_0001,child\nLISA_0003,adult\n")
    assert subject_kinds(tmp_path, scans) == {"LISA_0001": "child", "LISA_0002": "", "LISA_0003": "adult"}


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
