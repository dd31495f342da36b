"""Files and folders → scans: what belongs together, what is passed over, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_instances import files, stack
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian
from test_assess import StandIn

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.errors import ConfigError
from qcnode.imaging import phantom
from qcnode.imaging.swoop import swoop_series, to_bytes
from qcnode.imaging.volume import Volume
from qcnode.score import Scan, find_scans, grade, result
from qcnode.verdict import Decision, not_assessable

OTHER = "1.2.826.0.1.3680043.10.1.2"


@pytest.fixture(scope="module")
def head() -> Volume:
    return phantom.head(np.random.default_rng(6), Plane.AXIAL)


@pytest.fixture
def dicom(head: Volume, tmp_path: Path) -> Path:
    path = tmp_path / "scan"
    path.write_bytes(to_bytes(swoop_series(head, patient_id="P1", generator=np.random.default_rng(6))))
    return path


@pytest.fixture
def nifti(head: Volume, tmp_path: Path) -> Path:
    """As converters write it: the slice axis last."""
    path = tmp_path / "scan.nii.gz"
    affine = head.affine[:, [1, 2, 0, 3]]
    nib.save(nib.Nifti1Image(np.moveaxis(head.array, 0, -1), affine), path)
    return path


def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two series in folders of one folder, with a note beside them."""
    first, second = tmp_path / "all" / "a", tmp_path / "all" / "b"
    for folder in (first, second):
        folder.mkdir(parents=True)
    files(first, stack(4))
    files(second, stack(5, series=OTHER))
    (tmp_path / "all" / "note.txt").write_text("coil changed today")
    return first, second


def test_a_folder_gives_a_scan_for_each_series_and_passes_over_the_rest(tmp_path: Path) -> None:
    first, second = folders(tmp_path)
    assert [(scan.path, len(scan.files)) for scan in find_scans([tmp_path / "all"])] == [(first, 4), (second, 5)]


def test_where_the_files_of_a_series_lie_does_not_matter(tmp_path: Path) -> None:
    first, second = folders(tmp_path)
    for file in second.iterdir():
        file.rename(first / f"b{file.name}")
    found = find_scans([tmp_path / "all"])
    assert sorted(len(scan.files) for scan in found) == [4, 5]
    assert {scan.path for scan in found} == {first}


def test_the_same_file_named_twice_is_one(tmp_path: Path) -> None:
    first, _ = folders(tmp_path)
    (scan,) = find_scans([first, first, next(first.iterdir())])
    assert len(scan.files) == 4


def test_relative_and_absolute_names_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = folders(tmp_path)
    monkeypatch.chdir(tmp_path)
    one, *others = sorted(first.iterdir())
    (scan,) = find_scans([one.relative_to(tmp_path), *others])
    assert (scan.path, len(scan.files)) == (first, 4)
    assert [scan.path for scan in find_scans([Path("all")])] == [Path("all/a"), Path("all/b")]


def test_single_files_name_themselves(dicom: Path, nifti: Path) -> None:
    found = find_scans([dicom, nifti])
    assert {scan.path: scan.is_nifti for scan in found} == {dicom: False, nifti: True}


def test_a_dicom_folder_whose_name_looks_like_nifti_is_dicom(tmp_path: Path) -> None:
    first, _ = folders(tmp_path)
    renamed = first.rename(tmp_path / "export.nii")
    (scan,) = find_scans([renamed])
    assert not scan.is_nifti
    assert grade(scan, StandIn()).verdict.decision is Decision.NOT_ASSESSABLE


@pytest.mark.parametrize("name", ["note.txt", "empty.dcm", "empty"])
def test_what_is_neither_is_refused_in_a_sentence_with_its_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
    else:
        path.write_bytes(b"" if name == "empty.dcm" else b"coil changed today")
    with pytest.raises(ConfigError, match=rf"{name} holds neither DICOM nor NIfTI; give"):
        find_scans([path])


def test_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere does not exist; give"):
        find_scans([tmp_path / "nowhere"])


def test_dicom_and_nifti_of_one_scan_are_graded_alike(dicom: Path, nifti: Path) -> None:
    from_dicom, from_nifti = StandIn(), StandIn()
    one = grade(Scan(dicom, (dicom,)), from_dicom)
    other = grade(Scan(nifti, (nifti,)), from_nifti)
    assert (one.plane, one.verdict) == (other.plane, other.verdict) == (Plane.AXIAL, one.verdict)
    # 16-bit integers in the one, floats in the other
    np.testing.assert_allclose(from_dicom.asked[0], from_nifti.asked[0], atol=0.02)


@pytest.mark.parametrize("damage", ["cut", "text", "four-dimensional"])
def test_a_nifti_file_that_is_no_volume_has_its_reason(damage: str, nifti: Path) -> None:
    if damage == "cut":
        nifti.write_bytes(nifti.read_bytes()[:2000])
    elif damage == "text":
        nifti.write_text("coil changed today")
    else:
        nib.save(nib.Nifti1Image(np.zeros((8, 8, 20, 3), np.float32), np.eye(4)), nifti)
    found = grade(Scan(nifti, (nifti,)), StandIn())
    assert found.verdict.decision is Decision.NOT_ASSESSABLE
    assert found.verdict.reasons[0].endswith(".")
    assert not found.grades


def test_the_printed_entry_has_the_keys_that_scripts_lean_on(dicom: Path) -> None:
    entry = result(dicom, grade(Scan(dicom, (dicom,)), StandIn(Zipper=Severity.MODERATE)))
    assert json.loads(json.dumps(entry)) == entry
    assert list(entry) == [
        "path",
        "series_uid",
        "plane",
        "verdict",
        "reasons",
        "artifacts",
        "ensemble",
        "seconds",
    ]
    assert (entry["path"], entry["plane"], entry["verdict"]) == (str(dicom), "axial", "review")
    assert list(entry["artifacts"]) == [artifact.value for artifact in Artifact]
    assert entry["artifacts"]["Zipper"] == {"severity": 1, "probabilities": [0.1, 0.8, 0.1], "slices": [0]}


def test_the_entry_of_what_was_not_graded_has_the_same_keys(dicom: Path, tmp_path: Path) -> None:
    graded = result(dicom, grade(Scan(dicom, (dicom,)), StandIn()))
    broken = tmp_path / "broken.nii"
    shutil.copy(dicom, broken)
    entry = result(broken, grade(Scan(broken, (broken,)), StandIn()))
    assert list(entry) == list(graded)
    assert (entry["artifacts"], entry["verdict"]) == ({}, not_assessable("").decision)


def test_a_deflated_file_that_is_cut_short_is_passed_over(dicom: Path) -> None:
    dataset = dcmread(dicom)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    damaged = dicom.parent / "damaged"
    damaged.mkdir()
    dataset.save_as(damaged / "whole.dcm")
    data = (damaged / "whole.dcm").read_bytes()
    (damaged / "cut.dcm").write_bytes(data[: len(data) // 2])
    [scan] = find_scans([damaged])
    assert scan.files == (damaged / "whole.dcm",)


def test_a_brain_mask_beside_a_scan_is_not_a_scan_unless_it_is_named(tmp_path: Path) -> None:
    scan, mask = tmp_path / "LISA_0001_LF_axi.nii.gz", tmp_path / "LISA_0001_LF_axi_mask.nii.gz"
    scan.touch()
    mask.touch()
    assert [found.path for found in find_scans([tmp_path])] == [scan]
    assert [found.path for found in find_scans([mask])] == [mask]
