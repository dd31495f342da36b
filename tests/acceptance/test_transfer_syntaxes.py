"""One scan in every lossless transfer syntax, encoded by other makers: each is graded, and graded the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from peers import NodeProcess, tool
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from senders import all_finished, files, header, outcome, stored, storescu_as_it_is, swoop

from qcnode.artifacts import Artifact
from qcnode.imaging.volume import Volume
from qcnode.states import State


def dcmtk(program: str, *options: str) -> Callable[[Path, Path], None]:
    def encode(source: Path, target: Path) -> None:
        subprocess.run([tool(program), *options, str(source), str(target)], check=True, timeout=60)

    return encode


def openjpeg(source: Path, target: Path) -> None:
    from pydicom import dcmread

    ds = dcmread(source)
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    ds.save_as(target)


LOSSLESS: dict[UID, Callable[[Path, Path], None]] = {
    ExplicitVRLittleEndian: dcmtk("dcmconv", "+te"),
    DeflatedExplicitVRLittleEndian: dcmtk("dcmconv", "+td"),
    RLELossless: dcmtk("dcmcrle"),
    JPEGLosslessSV1: dcmtk("dcmcjpeg", "+e1"),
    JPEGLSLossless: dcmtk("dcmcjpls"),
    JPEG2000Lossless: openjpeg,
}


def test_every_lossless_transfer_syntax_gives_the_same_grades(
    node: NodeProcess, clean_head: Volume, tmp_path: Path
) -> None:
    paths = []
    for number, (syntax, encode) in enumerate(LOSSLESS.items()):
        [source] = files(tmp_path, swoop(clean_head, 200 + number))
        paths.append(source.with_suffix(".encoded"))
        encode(source, paths[-1])
        assert header(paths[-1]).file_meta.TransferSyntaxUID == syntax
    done = storescu_as_it_is(node.port, paths, tmp_path)
    assert stored(done) == len(LOSSLESS), done.stderr
    uids = [str(header(path).SeriesInstanceUID) for path in paths]
    ended = all_finished(node, uids)
    grades = []
    for uid, syntax in zip(uids, LOSSLESS, strict=True):
        series = ended[uid]
        assert series.state is State.ASSESSED, (syntax.name, outcome(series))
        assert series.latest is not None
        assert len(series.latest.scores) == len(Artifact), (syntax.name, outcome(series))
        grades.append({score.artifact: (score.p0, score.p1, score.p2) for score in series.latest.scores})
        detail = node.series(uid)
        assert detail is not None
        assert [instance.transfer_syntax_uid for instance in detail.instances] == [syntax]
    for syntax, grade in zip(LOSSLESS, grades, strict=True):
        assert grade == grades[0], syntax.name


def test_a_lossy_copy_is_acknowledged_and_excluded_as_derived(
    node: NodeProcess, clean_head: Volume, tmp_path: Path
) -> None:
    [source] = files(tmp_path, swoop(clean_head, 220))
    lossy = tmp_path / "lossy"
    dcmtk("dcmcjpls", "+en")(source, lossy)
    assert stored(storescu_as_it_is(node.port, [lossy], tmp_path)) == 1
    series = all_finished(node, [str(header(lossy).SeriesInstanceUID)]).popitem()[1]
    assert series.state is State.EXCLUDED, outcome(series)
    assert "derived" in str(series.reason).lower()
