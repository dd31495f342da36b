"""Synthetic series from DCMTK's sender to a real node: what is acknowledged, what is refused, what is said of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from peers import NodeProcess, storescu, tool
from pydicom import Dataset, dcmread
from senders import files, spooled, stored, swoop, with_event

from qcnode.artifacts import Artifact
from qcnode.ensemble.weights import read_manifest, shipped_folder
from qcnode.imaging.swoop import classic_series
from qcnode.imaging.volume import Volume
from qcnode.ledger.models import AssessmentRow
from qcnode.states import State
from qcnode.verdict import Decision

ALL_FRAMES = "all frames of the multi-frame object are here"


def echo(port: int, called: str = "QCNODE", calling: str = "SWOOP1") -> subprocess.CompletedProcess[str]:
    """DCMTK's C-ECHO."""
    command = [tool("echoscu"), "-aet", calling, "-aec", called, "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def report(node: NodeProcess, assessment: AssessmentRow) -> Dataset:
    """The structured report of this assessment, as it lies in the state folder."""
    [path] = [document.path for document in assessment.documents if document.kind == "report"]
    assert path is not None
    return dcmread(node.state / path)


def texts(item: Dataset) -> list[str]:
    """Every text in the report's tree."""
    own = [str(item.TextValue)] if "TextValue" in item else []
    return own + [text for child in item.get("ContentSequence", []) for text in texts(child)]


def test_it_answers_an_echo(node: NodeProcess) -> None:
    assert echo(node.port).returncode == 0
    assert echo(node.port, called="ANOTHER").returncode == 0  # nothing in the configuration asks for our title


def test_titles_that_the_configuration_does_not_name_are_refused_with_their_reason(
    start_node: Callable[..., NodeProcess],
) -> None:
    node = start_node(dicom='require_called_ae_title = true\ncalling_ae_titles = ["SWOOP1"]')
    assert echo(node.port).returncode == 0
    called, calling = echo(node.port, called="ANOTHER"), echo(node.port, calling="STRANGER")
    assert called.returncode != 0
    assert "Called AE Title Not Recognized" in called.stderr
    assert calling.returncode != 0
    assert "Calling AE Title Not Recognized" in calling.stderr


def test_a_network_that_the_configuration_does_not_name_is_refused(start_node: Callable[..., NodeProcess]) -> None:
    node = start_node(dicom='peer_networks = ["10.1.0.0/16"]')
    refused = echo(node.port)
    assert refused.returncode != 0
    assert "Calling AE Title Not Recognized" in refused.stderr  # PS3.8 has no reason that names an address


def test_a_swoop_object_is_assessed_the_moment_it_arrives(
    node: NodeProcess, clean_head: Volume, tmp_path: Path
) -> None:
    [path] = files(tmp_path, swoop(clean_head, 1))
    assert storescu(node.port, path).returncode == 0
    series = node.finished(str(dcmread(path).SeriesInstanceUID))
    assert (series.state, series.revision, series.complete_why) == (State.ASSESSED, 1, ALL_FRAMES)
    assert series.calling_ae == "SWOOP1"
    [assessment] = series.assessments
    assert assessment.decision is not Decision.NOT_ASSESSABLE, assessment.reasons
    assert {score.artifact for score in assessment.scores} == set(Artifact)
    assert {"report", "capture"} <= {document.kind for document in assessment.documents}
    assert report(node, assessment).StudyInstanceUID == series.study_instance_uid
    assert spooled(node, path).is_file()


def test_a_late_slice_makes_a_revision_whose_report_supersedes_the_first(
    node: NodeProcess, clean_head: Volume, tmp_path: Path
) -> None:
    slices = classic_series(clean_head, patient_id="LATE", generator=np.random.default_rng(2))
    *early, late = files(tmp_path, *slices)
    uid = str(slices[0].SeriesInstanceUID)
    assert storescu(node.port, *early).returncode == 0
    first = node.finished(uid)
    assert first.complete_why == "the association was released and the stack has no gap"
    assert storescu(node.port, late).returncode == 0
    second = node.finished(uid, revision=2)
    assert second.state is State.ASSESSED
    assert len(second.instances) == len(slices)
    new, old = second.assessments
    assert (new.revision, old.revision) == (2, 1)
    assert len(new.scores) == len(old.scores) == len(Artifact)
    [study] = report(node, new).PredecessorDocumentsSequence
    [named] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert named.ReferencedSOPInstanceUID == report(node, old).SOPInstanceUID == new.predecessor_uid
    assert "PredecessorDocumentsSequence" not in report(node, old)


def test_a_missing_slice_is_named_and_its_arrival_mends_the_series(
    node: NodeProcess, clean_head: Volume, tmp_path: Path
) -> None:
    slices = classic_series(clean_head, patient_id="GAP", generator=np.random.default_rng(3))
    paths = files(tmp_path, *slices)
    missing = paths.pop(8)
    uid = str(slices[0].SeriesInstanceUID)
    assert storescu(node.port, *paths).returncode == 0
    series = node.finished(uid)
    [assessment] = series.assessments
    assert assessment.decision is Decision.NOT_ASSESSABLE
    assert "9" in assessment.reasons[0]
    assert "missing" in assessment.reasons[0].lower()
    assert assessment.reasons[0] in texts(report(node, assessment))
    assert storescu(node.port, missing).returncode == 0
    mended = node.finished(uid, revision=2)
    assert mended.latest is not None
    assert mended.latest.decision is not Decision.NOT_ASSESSABLE, mended.latest.reasons
    assert len(mended.latest.scores) == len(Artifact)


def test_the_same_again_changes_nothing_and_other_bytes_are_a_conflict(
    node: NodeProcess, clean_head: Volume, tmp_path: Path
) -> None:
    ds = swoop(clean_head, 4)
    [path] = files(tmp_path, ds)
    ds.PixelData = bytes(len(ds.PixelData))
    [other] = files(tmp_path, ds)
    assert storescu(node.port, path).returncode == 0
    first = node.finished(str(ds.SeriesInstanceUID))
    kept = spooled(node, path).read_bytes()

    assert stored(storescu(node.port, "-v", path, calling="SWOOP2")) == 1
    assert stored(storescu(node.port, "-v", other)) == 1
    again = with_event(node, str(ds.SeriesInstanceUID), "conflict")

    assert [e.kind for e in again.events] == [*(e.kind for e in first.events), "conflict"]
    assert (again.state, again.revision, len(again.assessments)) == (first.state, 1, 1)
    assert spooled(node, path).read_bytes() == kept
    beside = list((node.state / "spool" / "conflicts" / str(ds.SeriesInstanceUID)).iterdir())
    assert [dcmread(each).PixelData for each in beside] == [ds.PixelData]


@pytest.mark.real_data
def test_a_contrast_that_the_weights_do_not_cover_is_excluded(node: NodeProcess, real_data: Path) -> None:
    """A real Swoop header: a FLAIR's, of eight slices."""
    path = real_data / "dicom" / "dicom2nifti_tests" / "hyperfine" / "anatomical" / "001" / "001.dcm"
    assert storescu(node.port, path).returncode == 0
    series = node.finished(str(dcmread(path).SeriesInstanceUID))
    assert series.complete_why == ALL_FRAMES
    if "FLAIR" in read_manifest(shipped_folder()).contrasts:
        assert series.latest is not None
        assert series.latest.decision is Decision.NOT_ASSESSABLE
    else:
        assert series.state is State.EXCLUDED
        assert "FLAIR" in str(series.reason)
