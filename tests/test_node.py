"""The node's parts together: it starts whole or not at all, takes up what a dead one left, and lets go at its end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dicom_instances import SERIES, classic_slice, part10

from qcnode.config import Assessing, Dicom, Eligibility, Settings, StateFolder, Web
from qcnode.ensemble.weights import shipped_folder
from qcnode.errors import ConfigError, PermanentError, TransientError
from qcnode.grading import Grading
from qcnode.intake.facts import read_facts
from qcnode.intake.listener import Received
from qcnode.intake.spool import Spool
from qcnode.ledger import records
from qcnode.ledger.store import Store
from qcnode.node import Node, _guarded
from qcnode.states import State
from qcnode.steps import entry
from qcnode.worker import Job

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
JOB = Job((), 1, NOW, None, {}, Eligibility(), Assessing())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        dicom=Dicom(host="127.0.0.1", port=0), web=Web(port=0), state=StateFolder(folder=tmp_path / "state")
    )


@pytest.fixture
def node(settings: Settings) -> Iterator[Node]:
    started = Node(settings)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def grading() -> Iterator[Grading]:
    started = Grading(Assessing())
    yield started
    started.stop()


def until(true: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.02)


def changed(settings: Settings, **sections: object) -> Settings:
    return settings.model_copy(update=sections)


def process_of(grading: Grading) -> int:
    (process,) = grading._pool._processes.values()
    assert process.pid is not None
    return process.pid


def test_a_node_gives_back_its_folder_its_ports_and_its_threads(settings: Settings) -> None:
    before = set(threading.enumerate())
    for _ in range(2):
        node = Node(settings)
        node.start()
        port = node.listener.port
        node.stop()
        with socket.create_server(("127.0.0.1", port)):
            until(lambda: set(threading.enumerate()) <= before, "the end of its threads")


def test_a_second_node_on_a_folder_refuses_and_the_first_goes_on(node: Node, settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"Another node works in .*; stop it, or give this one its own"):
        Node(settings).start()
    with urllib.request.urlopen(f"{node.web.url}healthz", timeout=5) as answer:
        assert answer.read() == b"ok"


@pytest.mark.parametrize(
    "fault", ["dicom port", "web port", "web host", "weights", "damaged weights", "folder", "ledger"]
)
def test_a_node_that_cannot_start_says_why_and_leaves_nothing_behind(
    fault: str, settings: Settings, tmp_path: Path
) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        if fault == "dicom port":
            broken, says = (
                changed(settings, dicom=Dicom(host="127.0.0.1", port=taken)),
                r"change \[dicom\] host or port",
            )
        elif fault == "web port":
            broken, says = changed(settings, web=Web(port=taken)), r"change \[web\] port"
        elif fault == "web host":
            broken, says = changed(settings, web=Web(host="0.0.0.0", port=0)), "is not loopback"
        elif fault == "weights":
            broken, says = changed(settings, assessing=Assessing(weights=tmp_path / "none")), r"none/manifest\.json"
        elif fault == "damaged weights":
            folder = Path(shutil.copytree(shipped_folder(), tmp_path / "weights"))
            next(folder.glob("*.safetensors")).write_bytes(b"damaged")
            broken, says = changed(settings, assessing=Assessing(weights=folder)), r"copy the whole weights folder"
        elif fault == "folder":
            (tmp_path / "file").write_text("")
            broken, says = changed(settings, state=StateFolder(folder=tmp_path / "file")), r"change \[state\] folder"
        else:
            state = StateFolder(folder=tmp_path / "state", ledger_url="nonsense://")
            broken, says = changed(settings, state=state), "no database URL"
        with pytest.raises(ConfigError, match=says):
            Node(broken).start()
    until(lambda: set(threading.enumerate()) <= before, "the end of its threads")
    node = Node(settings)
    node.start()
    node.stop()


def test_it_takes_up_what_a_dead_node_left(settings: Settings) -> None:
    folder = settings.state.folder
    known, unknown = part10(classic_slice(1)), part10(classic_slice(2))
    spool = Spool(folder)
    for instance in (known, unknown):
        spool.put(instance, SERIES, read_facts(instance).sop_instance_uid)
    half = folder / "spool" / "tmp" / ".x.partial"
    half.write_bytes(known[:100])
    with Store.open(settings.state) as store:
        receipt, facts = spool.receipt(SERIES, f"{SERIES}.1"), read_facts(known)
        store.record_instances(
            [
                records.Received(
                    *(SERIES, facts.study_instance_uid, facts.sop_instance_uid, facts.sop_class_uid),
                    *(facts.transfer_syntax_uid, receipt.sha256, receipt.size, NOW, "SWOOP1", facts.to_json()),
                )
            ]
        )
        store.mark_ready(SERIES, 1, "quiet", NOW)
        assert store.claim(NOW) is not None
    node = Node(settings)
    node.start()
    try:
        found = node.store.overview.detail(SERIES)
        assert found is not None
        assert found.instance_count == 2
        assert (found.state, found.revision) == (State.RECEIVING, 2), "what is adopted came late for the claim"
        assert not half.exists()
    finally:
        node.stop()


def test_what_arrives_is_recorded_once_the_ledger_can_be_reached(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    instance = part10(classic_slice(1))
    facts = read_facts(instance)
    receipt = node.spool.put(instance, SERIES, facts.sop_instance_uid)
    attempts: list[int] = []
    real = node.store.record_instances

    def sometimes(batch: list[records.Received]) -> set[str]:
        attempts.append(len(batch))
        if len(attempts) < 3:
            raise TransientError("The ledger is locked or out of reach; try again.")
        return real(batch)

    monkeypatch.setattr("qcnode.node.TICK_SECONDS", 0.05)
    monkeypatch.setattr(node.store, "record_instances", sometimes)
    with caplog.at_level(logging.WARNING, "qcnode"):
        node._backlog.add(Received(facts, receipt, "SWOOP1", NOW))
        until(lambda: node.store.overview.detail(SERIES), "its record")
    assert attempts == [1, 1, 1]
    assert caplog.text.count("recording_postponed instances=1") == 2


def test_an_instance_that_the_ledger_refuses_takes_no_other_with_it(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused, taken = (entry_of(node, part10(classic_slice(number))) for number in (1, 2))
    real = node.store.record_instances

    def picky(batch: list[records.Received]) -> set[str]:
        if refused in batch:
            raise PermanentError("The ledger refused a value.")
        return real(batch)

    monkeypatch.setattr(node.store, "record_instances", picky)
    with caplog.at_level(logging.ERROR, "qcnode"):
        node._index([refused, taken])
    found = node.store.overview.detail(SERIES)
    assert found is not None
    assert [one.sop_instance_uid for one in found.instances] == [taken.sop_instance_uid]
    assert f"instance_not_recorded sop={refused.sop_instance_uid}" in caplog.text


def test_a_job_that_wakes_another_while_the_node_stops_does_not_hold_it_up(settings: Settings) -> None:
    """The scheduler waits for its jobs with a lock held that waking takes."""
    node = Node(settings)
    node.start()
    running = threading.Event()

    def late() -> None:
        running.set()
        while node._scheduler.running:  # until it shuts down, and waits for this very job
            time.sleep(0.01)
        time.sleep(0.1)
        node._wake("assemble")

    node._scheduler.add_job(late)
    assert running.wait(20)
    stopping = threading.Thread(target=node.stop, daemon=True)
    stopping.start()
    stopping.join(30)
    assert not stopping.is_alive()


def entry_of(node: Node, instance: bytes) -> records.Received:
    facts = read_facts(instance)
    receipt = node.spool.put(instance, SERIES, facts.sop_instance_uid)
    return entry(Received(facts, receipt, "SWOOP1", NOW))


def test_a_node_whose_ledger_is_out_of_reach_still_stops(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(settings)
    node.start()
    instance = part10(classic_slice(1))
    facts = read_facts(instance)
    receipt = node.spool.put(instance, SERIES, facts.sop_instance_uid)

    def never(batch: list[records.Received]) -> set[str]:
        raise TransientError("The ledger is locked or out of reach; try again.")

    monkeypatch.setattr(node.store, "record_instances", never)
    node._backlog.add(Received(facts, receipt, "SWOOP1", NOW))
    stopping = threading.Thread(target=node.stop)
    stopping.start()
    stopping.join(20)
    assert not stopping.is_alive()
    again = Node(settings)
    again.start()
    try:
        assert again.store.overview.detail(SERIES) is not None, "the spool knew"
    finally:
        again.stop()


def test_a_grading_process_that_died_is_replaced(grading: Grading) -> None:
    died = process_of(grading)
    os.kill(died, signal.SIGKILL)
    with pytest.raises(BrokenExecutor):
        grading.submit(JOB)
    assert process_of(grading) != died


def test_a_grading_process_that_hangs_is_ended_and_replaced(grading: Grading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcnode.grading.GRADING_TIMEOUT_SECONDS", 0.1)
    hanging = process_of(grading)
    os.kill(hanging, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        grading.submit(JOB)
    with pytest.raises(ProcessLookupError):
        os.kill(hanging, 0)
    assert process_of(grading) != hanging


def test_weights_that_the_grading_process_cannot_use_are_an_early_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "qcnode"):
        started = Grading(Assessing(weights=tmp_path))
        try:
            until(lambda: "grading_unavailable" in caplog.text, "the line", 60)
        finally:
            started.stop()
    assert str(tmp_path) in caplog.text


def test_ctrl_c_does_not_reach_the_grading_process_while_it_begins() -> None:
    """It goes to the whole group; one that was still importing printed a traceback over the node's last words."""
    started = Grading(Assessing())
    try:
        status = Path(f"/proc/{process_of(started)}/status").read_text()
        blocked = int(status.split("SigBlk:")[1].split()[0], 16)
        assert blocked & 1 << (signal.SIGINT - 1)
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ()), "the node itself hears it"
    finally:
        started.stop()


def test_stopping_in_the_middle_of_a_job_is_no_fault_of_the_series(grading: Grading) -> None:
    pid = process_of(grading)
    os.kill(pid, signal.SIGSTOP)
    stop = threading.Timer(0.3, grading.stop)
    stop.start()
    with pytest.raises(TransientError, match="the series is graded at its next start"):
        grading.submit(JOB)
    stop.join()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(TransientError):
        grading.submit(JOB)


def test_a_ledger_out_of_reach_postpones_work_and_a_bug_is_not_hidden(caplog: pytest.LogCaptureFixture) -> None:
    def postponed() -> None:
        raise TransientError("The ledger is locked or out of reach; try again.")

    def wrong() -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.WARNING, "qcnode"):
        _guarded("assess", postponed)()
    assert "work_postponed job=assess" in caplog.text
    with pytest.raises(ZeroDivisionError):
        _guarded("assess", wrong)()
