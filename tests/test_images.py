"""The volume of a series, made from the spool when somebody asks: the scan itself, and nothing of the patient."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import nibabel
import numpy as np
import pytest
from page_cases import NOW, claimed, served, spooled
from reporting_cases import ASSESSMENTS, classic, swoop

from qcnode.config import StateFolder
from qcnode.errors import PermanentError
from qcnode.imaging.nifti import nifti
from qcnode.imaging.swoop import to_bytes
from qcnode.imaging.volume import Volume, volume_from_instances, volume_from_nifti
from qcnode.intake.spool import instance_path
from qcnode.ledger.store import Store
from qcnode.web.aside import Aside

AFFINE = np.array([[0, 0, -1.6, 8], [0.3, -1.6, 0, 9], [5, 0.1, 0, -80], [0, 0, 0, 1]], float)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


@pytest.fixture
def page(store: Store, tmp_path: Path) -> Iterator[httpx.Client]:
    with served(store, tmp_path) as client:
        yield client


@pytest.mark.parametrize("whole", [True, False])
def test_a_volume_comes_back_from_nifti_as_it_was(whole: bool, tmp_path: Path) -> None:
    array = np.random.default_rng(0).uniform(0, 900, (7, 6, 5)).astype(np.float32)
    volume = Volume(np.rint(array) if whole else array, AFFINE)
    (tmp_path / "volume.nii.gz").write_bytes(data := nifti(volume))
    again = volume_from_nifti(tmp_path / "volume.nii.gz")
    np.testing.assert_array_equal(again.array, volume.array)
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-5)
    assert nifti(volume) == data, "and no date is in it"


def test_a_series_volume_holds_nothing_of_the_header(store: Store, page: httpx.Client, tmp_path: Path) -> None:
    scan = swoop()
    scan.PatientName, scan.PatientID, scan.PatientBirthDate = "Doe^Secret", "S-4711", "20240229"
    scan.SeriesDescription, scan.InstitutionName = "Secret^Hill", "Secret Hill"
    uid = spooled(store, tmp_path, scan)
    answer = page.get(f"/series/{uid}/volume.nii.gz")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/gzip"
    assert answer.content[3] == 0, "the gzip header holds no file name"
    assert answer.content[4:8] == bytes(4), "and no time"
    data = gzip.decompress(answer.content)
    for private in (b"Secret", b"Doe", b"4711", b"20240229", b"SWOOP", b"1.2.", b"2.25."):
        assert private not in data[:352]
    image = nibabel.Nifti1Image.from_bytes(data)
    for field in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        assert not bytes(image.header[field]).strip(b"\0"), field
    assert not image.header.extensions
    expected = volume_from_instances([to_bytes(scan)])
    np.testing.assert_array_equal(np.asanyarray(image.dataobj).transpose(2, 1, 0), expected.array)


def test_what_holds_no_volume_says_why(store: Store, page: httpx.Client, tmp_path: Path) -> None:
    slices = classic(6)
    uid = spooled(store, tmp_path, *slices[:2], *slices[3:])
    answer = page.get(f"/series/{uid}/volume.nii.gz")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("Slice 3 of 6 is missing")
    assert page.get("/series/9.9/volume.nii.gz").json()["detail"] == "The images of this series are not in the spool."


def test_damaged_images_end_no_process_but_their_own(store: Store, page: httpx.Client, tmp_path: Path) -> None:
    uid = spooled(store, tmp_path, scan := swoop())
    path = instance_path(tmp_path, uid, str(scan.SOPInstanceUID))
    path.write_bytes(path.read_bytes()[:5000])
    assert page.get(f"/series/{uid}/volume.nii.gz").status_code == 404
    assert page.get("/healthz").text == "ok"


def test_a_server_that_stops_waits_for_no_volume() -> None:
    aside = Aside()
    assert aside.call(abs, -1) == 1
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(aside.call, time.sleep, 600)
        aside.stop()
        with pytest.raises(PermanentError):
            waiting.result(60)
    with pytest.raises(PermanentError, match="The node is stopping"):
        aside.call(abs, -1)


def test_images_that_retention_took_are_said_to_be_gone(store: Store, page: httpx.Client, tmp_path: Path) -> None:
    uid = spooled(store, tmp_path, scan := swoop())
    assert store.finish(claimed(store, uid), ASSESSMENTS["accept"], [], [], NOW)
    assert f"/series/{uid}/volume.nii.gz" in page.get(f"/series/{uid}").text
    assert store.mark_removed(uid, [str(scan.SOPInstanceUID)], NOW)
    assert f"/series/{uid}/volume.nii.gz" not in page.get(f"/series/{uid}").text
    assert page.get(f"/series/{uid}/volume.nii.gz").status_code == 404


def test_only_the_viewer_s_page_may_load_pictures_from_within(store: Store, page: httpx.Client, tmp_path: Path) -> None:
    uid = spooled(store, tmp_path, swoop())
    assert "img-src 'self' data:;" in page.get(f"/series/{uid}").headers["content-security-policy"]
    for path in ("/", "/login", "/healthz", f"/series/{uid}/verdict.png", "/static/viewer.js"):
        policy = page.get(path).headers["content-security-policy"]
        assert "data:" not in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
