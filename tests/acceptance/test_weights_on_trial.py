"""Weights on trial on a real node: they grade what arrives, nobody is told, both are compared, one command promotes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from archives import destination, storescp
from peers import NodeProcess, free_port, nodes, qcnode, storescu
from pydicom import dcmread
from senders import files, swoop, with_event

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the other tests share
from chance_weights import write_chance_weights
from page_cases import Markup

from qcnode.artifacts import Artifact, Plane
from qcnode.config import load
from qcnode.imaging import phantom
from qcnode.imaging.volume import Volume
from qcnode.ledger.models import Series

PATIENCE = 280.0  # seconds: on a busy machine, everybody is preferred to the weights on trial
# The site looks at everything, so that verdicts do not hang on what chance weights say.
POLICY = "[policy.Noise]\nreview = { severity = 0, probability = 0.0 }\n"


@dataclass
class Site:
    """A node with weights on trial, its archive, and the series that it got first."""

    node: NodeProcess
    archive: Path
    series: Series
    archived: set[str]  # by SOP Instance UID, before the weights on trial had graded

    def archived_now(self) -> set[str]:
        return {str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in self.archive.iterdir()}

    def compared(self) -> dict[str, object] | None:
        done = qcnode("shadow", "compare", "--json", "--config", self.node.config)
        assert done.returncode == 0, done.stderr
        found: dict[str, object] | None = json.loads(done.stdout)
        return found


def sent(node: NodeProcess, head: Volume, seed: int, folder: Path) -> str:
    ds = swoop(head, seed)
    folder.mkdir()
    done = storescu(node.port, *files(folder, ds))
    assert done.returncode == 0, done.stderr
    return str(ds.SeriesInstanceUID)


@pytest.fixture(scope="module")
def head() -> Volume:
    return phantom.head(np.random.default_rng(12), Plane.AXIAL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, head: Volume) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("trial"), free_port()
    weights = write_chance_weights(folder / "runs", folder / "candidate", "candidate")
    with storescp(folder / "archive", port) as archive, nodes(folder) as start:
        extra = f'{POLICY}[assessing]\nshadow = "{weights}"\n{destination("pacs", "DCMTK", port)}'
        node = start(extra)
        series = node.finished(sent(node, head, 1, folder / "first"))
        one = Site(node, archive, series, set())
        one.archived = one.archived_now()
        yield one


def test_the_verdict_comes_from_the_active_weights_and_the_archive_has_their_documents_alone(site: Site) -> None:
    assert site.series.latest is not None
    documents = {str(document.sop_instance_uid) for document in site.series.latest.documents}
    assert not site.series.latest.ensemble.startswith("candidate")
    with_event(site.node, site.series.series_instance_uid, "shadowed", PATIENCE)
    again = site.node.series(site.series.series_instance_uid)
    assert again is not None
    assert again.latest is not None
    assert [one.id for one in again.latest.documents] == [one.id for one in site.series.latest.documents]
    assert site.archived == site.archived_now() == documents
    for file in site.archive.iterdir():
        assert b"candidate" not in file.read_bytes()


def test_it_is_logged_and_the_log_names_no_patient(site: Site) -> None:
    with_event(site.node, site.series.series_instance_uid, "shadowed", PATIENCE)
    (line,) = [line for line in site.node.log.splitlines() if "shadowed" in line]
    assert site.series.series_instance_uid in line
    assert "candidate" in line
    assert "P-1" not in site.node.log


def test_the_page_and_the_command_show_both(site: Site) -> None:
    with_event(site.node, site.series.series_instance_uid, "shadowed", PATIENCE)
    compared = site.compared()
    assert compared is not None
    assert site.series.latest is not None
    assert compared["active"] == site.series.latest.ensemble
    assert str(compared["shadow"]).startswith("candidate-")
    assert (compared["scans"], compared["ungraded"]) == (1, 0)
    page = Markup(site.node.get("/shadow").decode())
    for name in ("active", "shadow"):
        assert str(compared[name]) in page.text
    system = Markup(site.node.get("/system").decode())
    assert f"{compared['shadow']} compare" in system.text
    assert "/shadow" in {attributes.get("href") for tag, attributes in system.elements if tag == "a"}


def test_once_promoted_they_grade_and_what_was_said_before_stays(site: Site, head: Volume) -> None:
    with_event(site.node, site.series.series_instance_uid, "shadowed", PATIENCE)
    before = site.compared()
    assert before is not None
    done = qcnode("shadow", "promote", "--config", site.node.config)
    assert done.returncode == 0, done.stderr
    assert load(site.node.config).assessing.shadow is None
    assert site.node.stop() == 0
    site.node.start(configured=False)
    series = site.node.finished(sent(site.node, head, 2, site.node.folder / "second"))
    assert series.latest is not None
    assert series.latest.ensemble == before["shadow"]
    assert {score.artifact for score in series.latest.scores} == set(Artifact)
    first = site.node.series(site.series.series_instance_uid)
    assert first is not None
    assert site.series.latest is not None
    assert [one.ensemble for one in first.assessments] == [site.series.latest.ensemble]
    assert site.compared() == before
    assert "none on trial" in Markup(site.node.get("/system").decode()).text
