"""Real scans of many makers to a real node: each acknowledged, kept bit for bit, and ended with a reason."""

from __future__ import annotations

import random
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

from qcnode.ledger.models import Series
from qcnode.states import State

pytestmark = pytest.mark.real_data

SWOOP = "dicom2nifti_tests/hyperfine/anatomical/001/001.dcm"
CHILD = "siemens_skyra_3yo_T1/*.dcm"

# Series of several files, by folder, and what is said of each when its contrast is no reason to exclude it.
SERIES = {
    "dicom2nifti_tests/anatomical/001": "not_assessable",
    "dicom2nifti_tests/anatomical/001_implicit": "not_assessable",
    "dicom2nifti_tests/failing/gantrytilting/001": "excluded",  # CT
    "dicom2nifti_tests/failing/notavolume/001": "excluded",  # CT
    "dicom2nifti_tests/failing/slicecount/001": "not_assessable",
    "dicom2nifti_tests/failing/sliceincrement/001": "excluded",  # CT
    "dicom2nifti_tests/failing/sliceincrement/002": "excluded",  # CT
    "dicom2nifti_tests/failing/sliceorientation/001": "not_assessable",
    "dicom2nifti_tests/generic/anatomical/001": "not_assessable",
    "dicom2nifti_tests/generic/anatomical/001_implicit": "not_assessable",
    "dicom2nifti_tests/generic/anatomical/002_non_isotropic": "not_assessable",
    "dicom2nifti_tests/generic/compressed/001": "not_assessable",
    "dicom2nifti_tests/generic/compressed_j2k/001": "not_assessable",
    "dicom2nifti_tests/generic/compressed_jpeg/001": "not_assessable",
    "dicom2nifti_tests/generic/compressed_jpegls/001": "not_assessable",
    "dicom2nifti_tests/generic/compressed_rle/001": "not_assessable",
    "dicom2nifti_tests/generic/rgb/001": "excluded",  # colour
    "enhanced_misc/Siemens/XA10": "not_assessable",
}
# Files that are a series each, though some share UIDs.
SINGLE = {
    SWOOP: "not_assessable",
    "dicom2nifti_tests/siemens_multiframe/anatomical/001/*.dcm": "not_assessable",
    "enhanced_misc/Philips/*.dcm": "",
    "pydicom_data_mr/*.dcm": "",
    "pydicom_mr/*.dcm": "",
    "siemens_xa30_enhanced_T1/*.dcm": "",
    "transfer_syntaxes_one_image/*.dcm": "excluded",  # a mosaic
}


@dataclass(frozen=True)
class Case:
    """One series of the corpus: its files with UIDs of their own, and how the outcome is to begin."""

    name: str
    paths: list[Path]
    expected: str
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
    folder = tmp_path_factory.mktemp("corpus")
    cases = []
    for where, expected in SERIES.items():
        cases.append(case(where, sorted((real_data / "dicom" / where).glob("*.dcm")), expected, folder))
    for pattern, expected in SINGLE.items():
        for path in sorted((real_data / "dicom").glob(pattern)):
            cases.append(case(str(path.relative_to(real_data / "dicom")), [path], expected, folder))
    paths = [path for each in cases for path in each.paths]
    sent = storescu_as_it_is(node.port, paths, folder)
    refused = [path for path in paths if f"Bad DICOM file: {path}" in sent.stdout + sent.stderr]
    assert all(answer.Status == 0x0000 for answer in send_bytes(node.port, refused))
    return Corpus(node, cases, sent, refused, all_finished(node, [each.series_uid for each in cases]))


def case(name: str, paths: list[Path], expected: str, folder: Path) -> Case:
    copies = renamed(paths, folder / name.replace("/", "_"), name.replace("/", "_"))
    [series_uid] = {str(header(path).SeriesInstanceUID) for path in copies}
    return Case(name, copies, expected, series_uid)


def test_every_file_is_acknowledged(corpus: Corpus) -> None:
    files = sum(len(each.paths) for each in corpus.cases)
    assert stored(corpus.sent) + len(corpus.refused_by_sender) == files, corpus.sent.stderr
    assert len(corpus.refused_by_sender) <= 2  # the truncated ones
    assert {len(series.instances) if False else series.instance_count for series in corpus.ended.values()} >= {1, 4}


def test_every_series_comes_to_its_end_with_a_reason(corpus: Corpus) -> None:
    said = {each.name: outcome(corpus.ended[each.series_uid]) for each in corpus.cases}
    print("\n".join(f"{name}: {what}" for name, what in said.items()))
    assert not [name for name, what in said.items() if what.startswith("failed")]
    wrong = {each.name: said[each.name] for each in corpus.cases if not said[each.name].startswith(each.expected)}
    assert not wrong
    assert all(len(what) > len("not_assessable: ") + 10 for what in said.values())


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
    print(outcome(series))
    beside = node.finished(other_uid)
    assert (beside.state, beside.revision, len(beside.instances)) == (State.ASSESSED, 1, 40), outcome(beside)
