"""A backup taken while the node writes is one instant of it, whole, and opens in a new state folder."""

from __future__ import annotations

import hashlib
import stat
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from qcnode import backup
from qcnode.backup import back_up
from qcnode.config import StateFolder
from qcnode.errors import ConfigError
from qcnode.ledger.records import NewDocument, Received
from qcnode.ledger.store import Store
from qcnode.states import State
from qcnode.verdict import Assessment, Decision, Verdict

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(folder=tmp_path / "state")


def grade(store: Store, folder: Path, number: int) -> None:
    """One series, all the way, as the node does it: the document on disk before its row."""
    uid, sop = f"1.2.{number}", f"2.25.{number}"
    store.record_instances([Received(uid, "1.2", f"{uid}.1", "1.2.4", "1.2.1", "a" * 64, 1, NOW, "SWOOP", {})])
    store.mark_ready(uid, 1, "quiet", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    path = Path("documents") / f"{sop}.dcm"
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(f"document {number}".encode() * 100)
    report = NewDocument("report", "1.2.840.10008.5.1.4.1.1.88.34", sop, str(path))
    (folder / path.with_suffix(".png")).write_bytes(f"picture {number}".encode())
    assessment, planes = Assessment(Verdict(Decision.ACCEPT, ()), uid), str(path.with_suffix(".png"))
    assert store.finish(claim, assessment, [report], [("report", "pacs")], NOW, planes=planes)


@contextmanager
def at_work(state: StateFolder, from_number: int) -> Iterator[None]:
    """A node that goes on writing within the block."""
    ending, begun = threading.Event(), threading.Event()

    def work() -> None:
        with Store.open(state) as store:
            number = from_number
            while not ending.is_set():
                grade(store, state.folder, number)
                number += 1
                begun.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(20)
    try:
        yield
    finally:
        ending.set()
        thread.join()


def restored(file: Path, folder: Path) -> StateFolder:
    """As docs/operations.md says: unpack it into an empty folder, and check the sums."""
    folder.mkdir()
    subprocess.run(["tar", "-xf", str(file), "-C", str(folder)], check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    return StateFolder(folder=folder)


def test_a_backup_taken_while_writes_go_on_opens_whole_in_a_new_folder(state: StateFolder, tmp_path: Path) -> None:
    with Store.open(state) as store:
        for number in range(5):
            grade(store, state.folder, number)
    with at_work(state, 100):
        backups = [back_up(state, tmp_path / f"{name}.tar") for name in ("first", "second", "third")]
    for one in backups:
        assert one.missing == ()
        again = restored(one.file, tmp_path / one.file.stem)
        with Store.open(again) as store:
            series = store.overview.recent(10_000)
            assert len(series) == one.series >= 5
            finished = [each for each in series if each.state is State.ASSESSED]
            documents = [document for each in finished for a in each.assessments for document in a.documents]
            assert len(documents) == len(finished) == one.documents
            for document in documents:
                kept, copied = (f / str(document.path) for f in (state.folder, again.folder))
                assert copied.read_bytes() == kept.read_bytes()
                assert copied.with_suffix(".png").read_bytes() == kept.with_suffix(".png").read_bytes()
            assert store.overview.counters().queues["deliver"] == len(documents)
            grade(store, again.folder, 999)  # and it takes new ones
    assert backups[0].series <= backups[1].series <= backups[2].series


def test_the_sums_cover_every_file_and_nobody_else_may_read_them(state: StateFolder, tmp_path: Path) -> None:
    with Store.open(state) as store:
        grade(store, state.folder, 1)
    (state.folder / "export.key").write_bytes(b"k" * 32)
    done = back_up(state, tmp_path / "b.tar")
    assert stat.S_IMODE(done.file.stat().st_mode) == 0o600
    with tarfile.open(done.file) as tar:
        files = {entry.name: tar.extractfile(entry).read() for entry in tar}
        assert {entry.mode for entry in tar} == {0o600}
    sums = dict(reversed(line.split("  ")) for line in files.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert set(sums) == {"ledger.sqlite3", "documents/2.25.1.dcm", "documents/2.25.1.png", "export.key"}


def test_a_document_that_is_lost_is_told(state: StateFolder, tmp_path: Path) -> None:
    with Store.open(state) as store:
        grade(store, state.folder, 1)
        grade(store, state.folder, 2)
    (state.folder / "documents" / "2.25.1.dcm").unlink()
    done = back_up(state, tmp_path / "b.tar")
    assert (done.documents, done.missing) == (1, ("documents/2.25.1.dcm",))


def test_what_is_there_is_not_overwritten_and_a_failure_leaves_nothing(
    state: StateFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(state) as store:
        grade(store, state.folder, 1)
    (tmp_path / "b.tar").write_text("precious")
    with pytest.raises(ConfigError, match="is there already"):
        back_up(state, tmp_path / "b.tar")
    assert (tmp_path / "b.tar").read_text() == "precious"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "_pack", full)
    with pytest.raises(ConfigError, match="No space left"):
        back_up(state, tmp_path / "c.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.tar", "state"]


def test_a_folder_without_a_ledger_and_a_ledger_elsewhere_are_sentences(state: StateFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no ledger"):
        back_up(state, tmp_path / "b.tar")
    assert not state.folder.exists()
    with pytest.raises(ConfigError, match="pg_dump"):
        back_up(StateFolder(folder=tmp_path, ledger_url="postgresql://h/q"), tmp_path / "b.tar")
