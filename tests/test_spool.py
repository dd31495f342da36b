"""The spool: acknowledged means durable."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dicom_instances import SERIES, classic_slice, part10

from qcnode.errors import PermanentError
from qcnode.intake.disk import data_set_digest, sealed
from qcnode.intake.spool import Outcome, Receipt, Spool, write_durably

SOP = f"{SERIES}.1"


def whole(data: bytes) -> bytes:
    """The file as the spool keeps it."""
    return b"".join(sealed(data, data_set_digest(data)))


FIRST = whole(part10(classic_slice(1)))
OTHER = whole(part10(classic_slice(1, ImageComments="other bytes")))


@pytest.fixture(params=[True, False], ids=["one-sync", "folders-too"], autouse=True)
def one_sync(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system brings the names to disk with the file: all holds on both kinds."""
    monkeypatch.setattr("qcnode.intake.spool.syncs_names_with_files", lambda folder: request.param)
    return bool(request.param)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under the folder but the lock."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_an_instance_lies_under_its_series(spool: Spool, tmp_path: Path) -> None:
    receipt = spool.put(FIRST, SERIES, SOP)
    assert receipt.outcome is Outcome.STORED
    assert receipt.path == Path("spool") / SERIES / f"{SOP}.dcm"
    assert receipt.size == len(FIRST)
    assert tree(tmp_path) == {str(receipt.path): FIRST}
    assert spool.read(SERIES, SOP) == FIRST
    assert spool.receipt(SERIES, SOP) == receipt


def test_the_hash_is_of_the_data_set(spool: Spool) -> None:
    data_set = FIRST[FIRST.index(b"\x08\x00\x16\x00UI") :]
    assert spool.put(FIRST, SERIES, SOP).sha256 == hashlib.sha256(data_set).hexdigest()


def test_a_file_is_for_the_node_alone(spool: Spool, tmp_path: Path) -> None:
    path = tmp_path / spool.put(FIRST, SERIES, SOP).path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_duplicate_changes_nothing_but_the_time(spool: Spool, tmp_path: Path) -> None:
    first = spool.put(FIRST, SERIES, SOP)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*.dcm")}
    again = spool.put(FIRST, SERIES, SOP)
    assert again == Receipt(Outcome.DUPLICATE, first.path, first.sha256, first.size)
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*.dcm")} == before
    assert spool.read(SERIES, SOP) == FIRST


def test_the_same_data_set_from_another_sender_is_a_duplicate(spool: Spool) -> None:
    spool.put(FIRST, SERIES, SOP)
    ds = classic_slice(1)
    part10(ds)
    ds.file_meta.SourceApplicationEntityTitle = "ELSEWHERE"
    path = spool._state / "other.dcm"
    ds.save_as(path, enforce_file_format=True)
    assert path.read_bytes() != FIRST
    assert spool.put(path.read_bytes(), SERIES, SOP).outcome is Outcome.DUPLICATE


def test_other_bytes_under_the_same_uids_are_kept_beside(spool: Spool, tmp_path: Path) -> None:
    first = spool.put(FIRST, SERIES, SOP)
    conflict = spool.put(OTHER, SERIES, SOP)
    assert conflict.outcome is Outcome.CONFLICT
    assert conflict.path == Path("spool/conflicts") / SERIES / f"{SOP}.{conflict.sha256[:16]}.dcm"
    assert tree(tmp_path) == {str(first.path): FIRST, str(conflict.path): OTHER}
    assert spool.put(OTHER, SERIES, SOP) == conflict
    assert list(spool.scan()) == [(SERIES, SOP)]


def test_one_uid_in_two_series_is_two_instances(spool: Spool) -> None:
    assert spool.put(FIRST, SERIES, SOP).outcome is Outcome.STORED
    assert spool.put(OTHER, SERIES + ".5", SOP).outcome is Outcome.STORED
    assert sorted(spool.scan()) == [(SERIES, SOP), (SERIES + ".5", SOP)]
    assert spool.instances(SERIES) == (SOP,)


def test_concurrent_senders_of_one_instance_make_one(spool: Spool, tmp_path: Path) -> None:
    start = threading.Barrier(8)

    def send(data: bytes) -> Outcome:
        start.wait()
        return spool.put(data, SERIES, SOP).outcome

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(send, [FIRST, OTHER] * 4))
    assert sorted(outcomes) == sorted([Outcome.STORED, *[Outcome.DUPLICATE] * 3, *[Outcome.CONFLICT] * 4])
    assert sorted(tree(tmp_path).values()) == sorted([FIRST, OTHER])


def test_what_comes_in_the_instant_before_its_folder_goes_stays(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention has emptied the series, and another process puts an instance into it."""
    spool.put(FIRST, SERIES, SOP)
    other, real = Spool(tmp_path), Path.rmdir

    def rmdir(folder: Path) -> None:
        if folder.name == SERIES and folder.parent.name == "spool":
            other.put(OTHER, SERIES, SOP + "2")
        real(folder)

    with monkeypatch.context() as context:
        context.setattr(Path, "rmdir", rmdir)
        spool.remove(SERIES)
    assert list(spool.scan()) == [(SERIES, SOP + "2")]
    assert spool.read(SERIES, SOP + "2") == OTHER


def test_a_folder_that_goes_in_the_instant_before_a_name_comes_is_made_again(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, real, links = Spool(tmp_path), os.link, list[Path]()

    def link(temporary: Path, name: Path) -> None:
        links.append(name)
        if len(links) == 1:
            other.remove(SERIES)
        real(temporary, name)

    monkeypatch.setattr(os, "link", link)
    assert spool.put(FIRST, SERIES, SOP).outcome is Outcome.STORED
    assert len(links) == 2
    assert list(spool.scan()) == [(SERIES, SOP)]
    monkeypatch.setattr(os, "link", lambda temporary, name: real(tmp_path / "gone", name))
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(FileNotFoundError):  # a temporary file that is gone does not make it try for ever
        spool.put(FIRST, SERIES, SOP + "2")


def test_a_folder_that_another_process_made_anew_is_synced_again(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_sync: bool
) -> None:
    """What this process knew of the folder's name was of one that retention has removed."""
    spool.put(FIRST, SERIES, SOP)
    node, other = Spool(tmp_path), Spool(tmp_path)  # as in processes of their own: they share no memory
    node.remove(SERIES)
    (tmp_path / "spool" / SERIES).mkdir()  # by the other, which did not come to sync it
    del other
    paths, root = synced(monkeypatch), tmp_path / "spool"
    spool.put(FIRST, SERIES, SOP)
    assert paths[1:] == ([] if one_sync else [root / SERIES, root])


@pytest.mark.parametrize(("series", "sop"), [("..", SOP), (SERIES, "../../x"), ("tmp", SOP), ("", SOP)])
def test_only_a_uid_names_a_file(spool: Spool, tmp_path: Path, series: str, sop: str) -> None:
    with pytest.raises(PermanentError):
        spool.put(FIRST, series, sop)
    with pytest.raises(PermanentError):
        spool.read(series, sop)
    assert tree(tmp_path) == {}


def test_a_series_is_removed_with_its_conflicts(spool: Spool, tmp_path: Path) -> None:
    spool.put(FIRST, SERIES, SOP)
    spool.put(OTHER, SERIES, SOP)
    spool.put(OTHER, SERIES + ".5", SOP)
    spool.remove(SERIES)
    assert list(spool.scan()) == [(SERIES + ".5", SOP)]
    assert not (tmp_path / "spool" / SERIES).exists()
    assert not (tmp_path / "spool/conflicts" / SERIES).exists()
    assert spool.put(OTHER, SERIES, SOP).outcome is Outcome.STORED


def test_what_arrived_since_is_not_removed(spool: Spool) -> None:
    spool.put(FIRST, SERIES, SOP)
    spool.put(OTHER, SERIES, SOP + "2")
    spool.remove(SERIES, only={SOP})
    assert spool.instances(SERIES) == (SOP + "2",)
    spool.remove("1.2.3.999")


@pytest.mark.parametrize("again", [FIRST, OTHER])
def test_what_was_sent_again_is_not_removed(spool: Spool, tmp_path: Path, again: bytes) -> None:
    """Its sender was told that it is here; so of the one, and of the other that is kept beside it."""
    spool.put(FIRST, SERIES, SOP)
    spool.put(FIRST, SERIES, SOP + "2")
    for path in (tmp_path / "spool" / SERIES).iterdir():
        os.utime(path, (0, 0))
    moment = datetime.now(UTC) - timedelta(hours=1)
    assert spool.sent_since(SERIES, moment) == set()
    spool.put(again, SERIES, SOP)
    assert spool.sent_since(SERIES, moment) == {SOP}
    assert spool.remove(SERIES, before=moment) == (SOP,)
    assert spool.instances(SERIES) == (SOP,)
    assert len(list((tmp_path / "spool/conflicts").rglob("*.dcm"))) == (again == OTHER)
    assert spool.remove(SERIES, before=datetime.now(UTC) + timedelta(hours=1)) == ()
    assert tree(tmp_path / "spool/conflicts") == {}
    assert spool.sent_since(SERIES, moment) == set()


# A crash, between any two steps


class Crash(BaseException):
    """The power went: nothing after this instant happens, so it is no Exception that anybody may handle."""


def crash(monkeypatch: pytest.MonkeyPatch, step: str, call: int, *, after: bool) -> None:
    """Let the `call`-th use of os.`step`, done (`after`) or not, be the last thing that happens."""
    real: Callable[..., object] = getattr(os, step)
    calls = iter(range(1, 100))

    def last(*arguments: object, **options: object) -> object:
        now = next(calls)
        if now == call and not after:
            raise Crash
        result = real(*arguments, **options)
        if now == call:
            raise Crash
        return result

    monkeypatch.setattr(os, step, last)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)


# put() of a new series: link, fsync of the file; where names need it, fsync of the series folder, of the spool folder.
STEPS = [("link", 1), ("fsync", 1), ("fsync", 2), ("fsync", 3)]


def skip_folders(step: str, call: int, one_sync: bool) -> None:
    if one_sync and step == "fsync" and call > 1:
        pytest.skip("there is but one sync")


@pytest.mark.parametrize("data", [FIRST, OTHER], ids=["stored", "conflict"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("step", "call"), STEPS)
def test_a_crash_at_any_step_leaves_only_what_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, call: int, after: bool, data: bytes, one_sync: bool
) -> None:
    skip_folders(step, call, one_sync)
    acknowledged = {}
    if data is OTHER:
        acknowledged[SERIES, SOP] = FIRST
        Spool(tmp_path).put(FIRST, SERIES, SOP)
        call += step == "link"  # the first link finds the name taken
    spool = Spool(tmp_path)
    with monkeypatch.context() as context:
        crash(context, step, call, after=after)
        with pytest.raises(Crash):
            spool.put(data, SERIES, SOP)

    restarted = Spool(tmp_path)
    assert restarted.clear_temporary() == 1
    assert not list((tmp_path / "spool" / "tmp").iterdir())
    on_disk = {uids: restarted.read(*uids) for uids in restarted.scan()}
    assert acknowledged.items() <= on_disk.items()
    assert set(on_disk.values()) <= {FIRST}
    assert set(tree(tmp_path).values()) <= {FIRST, OTHER}

    again = restarted.put(data, SERIES, SOP)
    expected = {Outcome.CONFLICT} if data is OTHER else {Outcome.STORED, Outcome.DUPLICATE}
    assert again.outcome in expected
    assert (tmp_path / again.path).read_bytes() == data


@pytest.mark.parametrize(("step", "call"), STEPS)
def test_a_full_disk_is_not_acknowledged_and_leaves_no_temporary_file(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, call: int, one_sync: bool
) -> None:
    skip_folders(step, call, one_sync)
    real: Callable[..., object] = getattr(os, step)
    calls = iter(range(1, 100))

    def full(*arguments: object, **options: object) -> object:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    with monkeypatch.context() as context:
        context.setattr(os, step, full)
        with pytest.raises(OSError, match="No space left"):
            spool.put(FIRST, SERIES, SOP)
    assert tree(tmp_path) == {}, "what may be torn does not keep its name"
    assert spool.put(FIRST, SERIES, SOP).outcome is Outcome.STORED
    assert spool.read(SERIES, SOP) == FIRST


def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files and folders that fsync is called on from now on, by the names they have then."""
    paths: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


def test_a_duplicate_waits_for_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_sync: bool) -> None:
    """Its twin may have linked the name a moment before a crash, and not have synced it."""
    Spool(tmp_path).put(FIRST, SERIES, SOP)
    spool, paths = Spool(tmp_path), synced(monkeypatch)
    assert spool.put(FIRST, SERIES, SOP).outcome is Outcome.DUPLICATE
    series = tmp_path / "spool" / SERIES
    assert paths == [series / f"{SOP}.dcm", *([] if one_sync else [series, tmp_path / "spool"])]


def test_each_name_on_the_way_is_synced_once_it_is_new(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_sync: bool
) -> None:
    paths, root = synced(monkeypatch), tmp_path / "spool"
    spool.put(FIRST, SERIES, SOP)
    assert paths[0].parent == root / "tmp"
    assert paths[1:] == ([] if one_sync else [root / SERIES, root])
    paths.clear()
    spool.put(OTHER, SERIES, SOP + "2")
    assert paths[0].parent == root / "tmp"
    assert paths[1:] == ([] if one_sync else [root / SERIES])
    spool.remove(SERIES)
    paths.clear()
    spool.put(FIRST, SERIES, SOP)
    assert paths[1:] == ([] if one_sync else [root / SERIES, root])


def test_a_file_has_its_name_when_it_is_synced(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sync is enough only for a name that was given before it."""
    names: list[bool] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        names.append((tmp_path / "spool" / SERIES / f"{SOP}.dcm").exists())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    spool.put(FIRST, SERIES, SOP)
    assert names
    assert all(names)


def test_what_was_put_without_a_seal_gets_one(spool: Spool) -> None:
    spool.put(part10(classic_slice(1)), SERIES, SOP)
    assert spool.read(SERIES, SOP) == FIRST


TORN = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "zeros at the end": lambda data: data[:512] + bytes(len(data) - 512),
    "a bit": lambda data: data[:700] + bytes([data[700] ^ 1]) + data[701:],
}


@pytest.mark.parametrize("tear", TORN.values(), ids=TORN)
def test_a_file_that_a_power_cut_tore_is_told_and_makes_way(
    spool: Spool, tmp_path: Path, tear: Callable[[bytes], bytes]
) -> None:
    for data in (FIRST, OTHER):  # as it is sent again, and as another data set
        path = tmp_path / spool.put(FIRST, SERIES, SOP).path
        assert not spool.drop_torn(SERIES, SOP)
        path.write_bytes(tear(FIRST))
        assert spool.put(data, SERIES, SOP).outcome is Outcome.STORED
        assert tree(tmp_path) == {str(path.relative_to(tmp_path)): data}
        path.write_bytes(tear(data))
        assert spool.drop_torn(SERIES, SOP)
        assert tree(tmp_path) == {}


def test_a_file_of_before_the_seals_is_whole(spool: Spool, tmp_path: Path) -> None:
    path = tmp_path / spool.put(FIRST, SERIES, SOP).path
    path.write_bytes(part10(classic_slice(1)))
    assert not spool.drop_torn(SERIES, SOP)
    assert spool.put(FIRST, SERIES, SOP).outcome is Outcome.DUPLICATE


def test_a_twin_waits_for_the_first_one_s_sync(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one's disk fails: the twin must not have been told that the instance is there."""
    syncing, fail = threading.Event(), threading.Event()
    real, first = os.fsync, threading.main_thread()

    def fsync(descriptor: int) -> None:
        if threading.current_thread() is first:
            syncing.set()
            assert fail.wait(10)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    def twin() -> Outcome:
        assert syncing.wait(10)
        threading.Timer(0.1, fail.set).start()
        return spool.put(FIRST, SERIES, SOP).outcome

    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(twin)
        with pytest.raises(OSError, match="Input/output"):
            spool.put(FIRST, SERIES, SOP)
        assert outcome.result(10) is Outcome.STORED
    assert spool.read(SERIES, SOP) == FIRST


def test_what_was_put_is_told_while_a_crash_would_still_leave_its_trace(spool: Spool, tmp_path: Path) -> None:
    """When it is durable, and before the temporary file goes, by which others find what was not told."""
    told: list[tuple[Receipt, list[bytes]]] = []

    def tell(receipt: Receipt) -> None:
        told.append((receipt, [path.read_bytes() for path in (tmp_path / "spool" / "tmp").iterdir()]))

    receipt = spool.put(FIRST, SERIES, SOP, tell)
    assert told == [(receipt, [FIRST])]
    with pytest.raises(ZeroDivisionError):
        spool.put(OTHER, SERIES, SOP + "2", lambda receipt: 1 / 0)  # type: ignore[arg-type, return-value]
    assert not list((tmp_path / "spool" / "tmp").iterdir())


def test_a_document_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "documents" / "1.2.3.dcm"
    write_durably(path, b"first")
    paths = synced(monkeypatch)
    write_durably(path, b"second")
    assert tree(tmp_path) == {"documents/1.2.3.dcm": b"second"}
    assert path.parent in paths
    monkeypatch.setattr(os, "fsync", lambda descriptor: os.strerror(1 / 0))
    with pytest.raises(ZeroDivisionError):
        write_durably(path, b"third")
    assert tree(tmp_path) == {"documents/1.2.3.dcm": b"second"}
