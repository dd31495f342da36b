"""Real scans of many makers to a real node: each acknowledged, kept bit for bit, and ended with a reason."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from peers import NodeProcess, nodes, storescu
from senders import (
    all_finished,
    data_set,
    header,
    outcome,
    renamed,
    send_bytes,
    spooled,
    stored,
    storescp,
    storescu_as_it_is,
)

from qcnode.ensemble.weights import read_manifest, shipped_folder
from qcnode.ledger.models import Series
from qcnode.states import State

pytestmark = pytest.mark.real_data

CHILD = "siemens_skyra_3yo_T1/*.dcm"

FOUR = "not_assessable: .* 4 slices; at least 12"
ONE = "not_assessable: .* 1 slice;"
CT = "excluded: .* CT, not MR"

# Series of several files, by folder, and what is said of each.
SERIES = {
    "dicom2nifti_tests/anatomical/001": FOUR,
    "dicom2nifti_tests/anatomical/001_implicit": FOUR,
    "dicom2nifti_tests/failing/gantrytilting/001": CT,
    "dicom2nifti_tests/failing/notavolume/001": CT,
    "dicom2nifti_tests/failing/slicecount/001": "not_assessable: .* 2 slices",
    "dicom2nifti_tests/failing/sliceincrement/001": CT,
    "dicom2nifti_tests/failing/sliceincrement/002": CT,
    "dicom2nifti_tests/failing/sliceorientation/001": "excluded: .* 2 directions",
    "dicom2nifti_tests/generic/anatomical/001": FOUR,
    "dicom2nifti_tests/generic/anatomical/001_implicit": FOUR,
    "dicom2nifti_tests/generic/anatomical/002_non_isotropic": "excluded: .* reformat",
    "dicom2nifti_tests/generic/compressed/001": FOUR,
    "dicom2nifti_tests/generic/compressed_j2k/001": FOUR,
    "dicom2nifti_tests/generic/compressed_jpeg/001": FOUR,
    "dicom2nifti_tests/generic/compressed_jpegls/001": FOUR,
    "dicom2nifti_tests/generic/compressed_rle/001": FOUR,
    "dicom2nifti_tests/generic/rgb/001": "excluded: .* Secondary Capture",
    "enhanced_misc/Siemens/XA10": "excluded: .* 4 volumes",
}
# Files that are a series each, as some share their UIDs; where two patterns fit, the first counts.
SINGLE = {
    "dicom2nifti_tests/hyperfine/anatomical/001/001.dcm": "FLAIR",
    "dicom2nifti_tests/siemens_multiframe/anatomical/001/*.dcm": "not_assessable: .* 8 slices",
    "enhanced_misc/Philips/*.dcm": "excluded: .* phase",
    "pydicom_data_mr/MR-SIEMENS*.dcm": "excluded: .* reformat",
    "pydicom_data_mr/MR2_*.dcm": ONE,
    "pydicom_data_mr/emri_small*too_short.dcm": "not_assessable: .* cut short",
    "pydicom_data_mr/emri_small*.dcm": "not_assessable: .* 10 frames and the positions of 1",
    "pydicom_mr/MR_truncated.dcm": "not_assessable: .* cut short",
    "pydicom_mr/*.dcm": ONE,
    "siemens_xa30_enhanced_T1/*.dcm": "accept|review|rescan",
    "transfer_syntaxes_one_image/*.dcm": "excluded: .* mosaic",
}
# Some single images say that they are derived, which would spare them the decoder: a word of as many letters.
AS_ORIGINAL = {
    rb"DERIVED\SECONDARY\OTHER": rb"ORIGINAL\PRIMARY\OTHERS",
    rb"DERIVED\PRIMARY\OTHER": rb"ORIGINAL\PRIMARY\NONE",
}


@dataclass(frozen=True)
class Case:
    """One series of the corpus: its files with UIDs of their own, and the pattern of what is said of it."""

    name: str
    paths: list[Path]
    said: str
    series_uid: str


@dataclass(frozen=True)
class Corpus:
    """The corpus once it was sent to a node."""

    node: NodeProcess
    cases: list[Case]
    sent: subprocess.CompletedProcess[str]
    refused_by_sender: list[Path]  # DCMTK cannot read these; they went as their bytes are
    ended: dict[str, Series]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node to which every contrast that the header does not name itself is T2w, so that real volumes are graded."""
    rules = '[completeness]\ngrace_seconds = 1\nquiet_seconds = 4\n[eligibility]\ntiming = [{contrast = "T2w"}]\n'
    with nodes(tmp_path_factory.mktemp("real")) as start:
        yield start(rules)


@pytest.fixture(scope="module")
def corpus(node: NodeProcess, real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Every file but the child's series, over one association of DCMTK's sender."""
    folder, source = tmp_path_factory.mktemp("corpus"), real_data / "dicom"
    cases = [case(name, sorted((source / name).glob("*.dcm")), said, folder) for name, said in SERIES.items()]
    singles = {path: said for pattern, said in reversed(SINGLE.items()) for path in sorted(source.glob(pattern))}
    cases += [case(str(path.relative_to(source)), [path], said, folder) for path, said in singles.items()]
    paths = [path for each in cases for path in each.paths]
    sent = storescu_as_it_is(node.port, paths, folder)
    refused = [path for path in paths if f"Bad DICOM file: {path}" in sent.stdout + sent.stderr]
    assert all(answer.Status == 0x0000 for answer in send_bytes(node.port, refused))
    return Corpus(node, cases, sent, refused, all_finished(node, [each.series_uid for each in cases]))


def case(name: str, paths: list[Path], said: str, folder: Path) -> Case:
    """The case, its files copied with UIDs of their own."""
    copies = renamed(paths, folder / name.replace("/", "_"), name.replace("/", "_"))
    for path in copies:
        data = path.read_bytes()
        for derived, original in AS_ORIGINAL.items():
            data = data.replace(derived, original)
        path.write_bytes(data)
    [series_uid] = {str(header(path).SeriesInstanceUID) for path in copies}
    return Case(name, copies, said, series_uid)


def expected(each: Case) -> str:
    """A contrast alone: excluded for it, or for too few slices where the shipped weights cover it."""
    if each.said != "FLAIR":
        return each.said
    covered = each.said in read_manifest(shipped_folder()).contrasts
    return "not_assessable: .* slices; at least 12" if covered else f"excluded: .* {each.said}"


def test_every_file_is_acknowledged(corpus: Corpus) -> None:
    files = sum(len(each.paths) for each in corpus.cases)
    assert stored(corpus.sent) + len(corpus.refused_by_sender) == files, corpus.sent.stderr
    truncated = {"pydicom_mr_MR_truncated.dcm", "pydicom_data_mr_emri_small_jpeg_2k_lossless_too_short.dcm"}
    assert {path.parent.name for path in corpus.refused_by_sender} == truncated
    for each in corpus.cases:
        assert corpus.ended[each.series_uid].instance_count == len(each.paths), each.name


def test_every_series_comes_to_its_end_with_its_reason(corpus: Corpus) -> None:
    said = {each.name: outcome(corpus.ended[each.series_uid]) for each in corpus.cases}
    wrong = {each.name: said[each.name] for each in corpus.cases if not re.match(expected(each), said[each.name])}
    assert not wrong
    assert all(what.endswith(".") for what in said.values())  # each a sentence


def test_what_the_node_keeps_is_what_was_sent_bit_for_bit(corpus: Corpus, tmp_path: Path) -> None:
    """DCMTK's own receiver says what DCMTK's sender sends: it rewrites sequences of a file on the way."""
    paths = [path for each in corpus.cases for path in each.paths if path not in corpus.refused_by_sender]
    with storescp(tmp_path / "received") as port:
        sent = storescu_as_it_is(port, paths, tmp_path)
    assert stored(sent) == len(paths), sent.stderr
    received = {str(header(path).SOPInstanceUID): path for path in (tmp_path / "received").iterdir()}
    for path in paths:
        kept, reference = spooled(corpus.node, path), received[str(header(path).SOPInstanceUID)]
        assert data_set(kept.read_bytes()) == data_set(reference.read_bytes()), path.name
        assert header(kept).file_meta.TransferSyntaxUID == header(path).file_meta.TransferSyntaxUID
    for path in corpus.refused_by_sender:
        assert data_set(spooled(corpus.node, path).read_bytes()) == data_set(path.read_bytes()), path.name


def test_every_ungraded_series_has_a_report_and_every_excluded_one_has_none(corpus: Corpus) -> None:
    for each in corpus.cases:
        series = corpus.ended[each.series_uid]
        kinds = {document.kind for assessment in series.assessments for document in assessment.documents}
        assert kinds >= {"report", "capture"} if series.state is State.ASSESSED else not kinds, each.name


def test_a_childs_series_slice_by_slice(node: NodeProcess, real_data: Path, tmp_path: Path) -> None:
    """192 slices over two associations at once, out of order, some twice, interleaved with another series."""
    slices = renamed(sorted((real_data / "dicom").glob(CHILD)), tmp_path / "child", "child")
    other = renamed(sorted((real_data / "dicom").glob(CHILD))[80:120], tmp_path / "other", "other")
    assert len(slices) == 192
    order = random.Random(3)
    mixed = [*slices, *other, *order.sample(slices, 24)]
    order.shuffle(mixed)
    halves = mixed[::2], mixed[1::2]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda half: storescu(node.port, "-v", *half), halves))
    assert [stored(each) for each in done] == [len(half) for half in halves]
    uid, other_uid = (str(header(paths[0]).SeriesInstanceUID) for paths in (slices, other))
    series = node.finished(uid)
    assert (series.state, series.revision, len(series.instances)) == (State.ASSESSED, 1, 192), outcome(series)
    assert series.complete_why == "the association was released and the stack has no gap"
    assert [assessment.revision for assessment in series.assessments] == [1]
    assert re.match("accept|review|rescan", outcome(series))
    beside = node.finished(other_uid)
    assert (beside.state, beside.revision, len(beside.instances)) == (State.ASSESSED, 1, 40), outcome(beside)
