"""Names on the page: only where the site turns them on, and always as text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from page_cases import markup, served, spooled
from reporting_cases import swoop

from qcnode.config import StateFolder, Web
from qcnode.intake.spool import instance_path
from qcnode.ledger.store import Store
from qcnode.web.names import Names

HOSTILE = "<b>Doe</b>^&amp;"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


@pytest.mark.parametrize("shown", [True, False])
def test_a_name_is_shown_where_the_site_wants_it_and_is_text(shown: bool, store: Store, tmp_path: Path) -> None:
    scan = swoop(patient_name=HOSTILE)
    scan.SeriesDescription = "<script>alert(1)</script>"
    uid = spooled(store, tmp_path, scan)
    with served(store, tmp_path, Web(port=0, patient_names=shown)) as page:
        for path in ("/", f"/series/{uid}"):
            found = markup(page, path)
            assert (f"{HOSTILE} · S-1 · <script>alert(1)</script>" in found.text) is shown
            assert ("Doe" in page.get(path).text) is shown
            assert "b" not in {tag for tag, _ in found.elements}
            assert all(a.get("src") for tag, a in found.elements if tag == "script")


def test_a_series_without_images_or_with_a_damaged_header_has_no_name(store: Store, tmp_path: Path) -> None:
    uid = spooled(store, tmp_path, scan := swoop())
    assert Names(tmp_path).of(uid).startswith("SYNTHETIC^HEAD · S-1")
    assert Names(tmp_path).of("9.9") == ""
    path = instance_path(tmp_path, uid, str(scan.SOPInstanceUID))
    path.write_bytes(b"no DICOM")
    assert Names(tmp_path).of(uid) == ""
