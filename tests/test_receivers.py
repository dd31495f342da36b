"""Several receiving processes behind one door: together they are one listener, and the end of one is nobody else's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dicom_instances import SERIES, classic_slice, part10
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from test_hostile_peers import (
    ACCEPTED,
    command,
    connected,
    data_pdu,
    data_set,
    read_pdu,
    request_pdu,
    store,
    store_answer,
)

from qcnode.config import Dicom
from qcnode.intake import receivers
from qcnode.intake.association import Answer
from qcnode.intake.associations import AssociationEvent
from qcnode.intake.completeness import AssociationState
from qcnode.intake.listener import Listener, Received
from qcnode.intake.spool import Outcome, Spool

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
KEPT = f"{SERIES}.1"


@dataclass
class Node:
    """A listener with receiving processes, all of them ready, and what it told."""

    listener: Listener
    spool: Spool
    received: list[Received] = field(default_factory=list)
    events: list[AssociationEvent] = field(default_factory=list)

    peers: list[socket.socket] = field(default_factory=list)

    def peer(self, abstract: str = MRImageStorage) -> socket.socket:
        """An association; the connection is closed in the end."""
        self.peers.append(connected(self, abstract=abstract))
        return self.peers[-1]

    @property
    def pids(self) -> set[int]:
        return {one.popen.pid for one in self._behind._processes.values() if one.is_ready}

    @property
    def spread(self) -> list[int]:
        """How many connections each process has."""
        return sorted(len(one.connections) for one in self._behind._processes.values())

    @property
    def _behind(self) -> receivers.Receivers:
        assert isinstance(self.listener._behind, receivers.Receivers)
        return self.listener._behind

    def serving(self, peer: int) -> int:
        """The pid of the process that has the only connections, `peer` of them."""
        (found,) = [one for one in self._behind._processes.values() if len(one.connections) == peer]
        return found.popen.pid


Start = Callable[..., Node]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts listeners on loopback, with the [dicom] settings given; two processes where they say nothing."""
    running: list[Node] = []

    def start(steps: Any = None, **settings: Any) -> Node:
        settings = {"host": "127.0.0.1", "port": 0, "minimum_free_mb": 0, "processes": 2} | settings
        spool, received, events = Spool(tmp_path), list[Received](), list[AssociationEvent]()
        listener = Listener(Dicom(**settings), spool, received.append, events.append, steps)
        running.append(Node(listener, spool, received, events))
        listener.start()
        until(lambda: len(running[-1].pids) == settings["processes"], 30)
        return running[-1]

    yield start
    for node in running:
        node.listener.stop(0.0)
        for peer in node.peers:
            peer.close()


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def encoded(ds: Dataset) -> bytes:
    file = part10(ds, ExplicitVRLittleEndian)
    return file[144 + int.from_bytes(file[140:144], "little") :]


def release(peer: socket.socket) -> None:
    peer.sendall(b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00")
    assert read_pdu(peer)[0] == 6


@pytest.mark.parametrize(("cores", "setting", "processes"), [(1, None, 1), (2, None, 2), (64, None, 4), (1, 3, 3)])
def test_there_is_one_for_each_core_unless_the_configuration_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, setting: int | None, processes: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    listener = Listener(Dicom(port=0, processes=setting), Spool(tmp_path), lambda received: None)
    assert listener.processes == processes
    assert isinstance(listener._behind, receivers.Receivers) is (processes > 1)


# Together they are one listener


def test_connections_go_to_the_process_that_has_the_fewest(start: Start) -> None:
    node = start(processes=3)
    peers = [node.peer() for _ in range(7)]
    assert node.spread == [2, 2, 3]
    for number, peer in enumerate(peers, 1):
        assert store(peer, data_set(number=number), f"{SERIES}.{number}") == SUCCESS
        release(peer)
    until(lambda: node.spread == [0, 0, 0])
    assert sorted(one.facts.sop_instance_uid for one in node.received) == [f"{SERIES}.{n}" for n in range(1, 8)]
    assert [event.kind for event in node.events].count("released") == 7


def test_the_limit_of_associations_is_the_node_s_and_exact(start: Start) -> None:
    node = start(processes=3, maximum_associations=4)

    def ask(_: int) -> tuple[int, socket.socket]:
        peer = socket.create_connection(("127.0.0.1", node.listener.port), timeout=20)
        peer.sendall(request_pdu())
        return read_pdu(peer)[0], peer

    with ThreadPoolExecutor(12) as pool:
        asked = list(pool.map(ask, range(12)))
    assert [kind for kind, _ in asked].count(ACCEPTED) == 4
    assert len(node.listener.associations) == 4
    release(next(peer for kind, peer in asked if kind == ACCEPTED))
    until(lambda: len(node.listener.associations) == 3)
    again, peer = ask(0)
    assert again == ACCEPTED
    for one in [peer, *(peer for _, peer in asked)]:
        one.close()


def test_the_bounds_on_memory_count_what_all_processes_hold(start: Start) -> None:
    node = start(maximum_instance_mb=1)
    with node.peer() as first, node.peer() as second, node.peer() as third:
        assert node.spread == [1, 2]
        for number, peer in enumerate((first, second), 1):  # 0.9 MB of an instance each, and not its end
            peer.sendall(data_pdu(command(f"{SERIES}.{number}"), 3))
            for _ in range(9):
                peer.sendall(data_pdu(bytes(100_000), 0))
        until(lambda: node.listener.room._figures.total(1) >= 1_800_000)
        assert store(third, bytes(300_000), f"{SERIES}.3") == OUT_OF_RESOURCES
        first.close()
        until(lambda: node.listener.room._figures.total(1) < 1_000_000)
        assert store(third, data_set(number=3), f"{SERIES}.3") == SUCCESS


def test_one_instance_from_many_at_once_is_one(start: Start) -> None:
    node = start()
    contents = [encoded(classic_slice(1)), encoded(classic_slice(1, ImageComments="other"))] * 4
    peers = [node.peer() for _ in contents]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda pair: store(pair[0], pair[1], KEPT), zip(peers, contents, strict=True)))
    assert answers == [SUCCESS] * 8
    for peer in peers:
        release(peer)
    until(lambda: len(node.received) == 8)
    outcomes = [one.receipt.outcome for one in node.received]
    assert sorted(outcomes) == sorted([Outcome.STORED, *[Outcome.DUPLICATE] * 3, *[Outcome.CONFLICT] * 4])
    assert node.spool.instances(SERIES) == (KEPT,)


def test_who_sends_what_another_process_is_putting_waits_for_its_end(start: Start, tmp_path: Path) -> None:
    """It may fail on the disk yet: the other must not have been told that the instance is there."""
    node, elsewhere = start(), Spool(tmp_path)
    with node.peer() as peer, ThreadPoolExecutor(1) as pool:
        with elsewhere._alone(tmp_path / "spool" / SERIES / f"{KEPT}.dcm"):
            answer = pool.submit(store, peer, data_set(), KEPT)
            until(lambda: list((tmp_path / "spool" / "tmp").iterdir()))
            with node.peer() as other:
                assert store(other, data_set(number=2), f"{SERIES}.2") == SUCCESS
            assert not answer.done()
        assert answer.result(20) == SUCCESS


def test_a_series_that_came_over_two_of_them_is_released_with_the_second(start: Start) -> None:
    node = start()
    state = node.listener.associations.state
    first, second = node.peer(), node.peer()
    assert node.spread == [1, 1]
    assert [store(peer, data_set(number=n), f"{SERIES}.{n}") for n, peer in ((1, first), (2, second))] == [SUCCESS] * 2
    until(lambda: len(node.received) == 2)  # both processes told, but the node hears each in a thread of its own
    release(first)
    until(lambda: "released" in [event.kind for event in node.events])
    assert state(SERIES) is AssociationState.OPEN
    release(second)
    until(lambda: state(SERIES) is AssociationState.RELEASED)


def test_their_lines_are_in_the_node_s_log(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    node = start()
    with node.peer() as peer:
        for comments in ("", "other"):
            assert store(peer, encoded(classic_slice(1, ImageComments=comments)), KEPT) == SUCCESS
        assert store(peer, encoded(classic_slice(2, SeriesInstanceUID=None)), f"{SERIES}.2") == 0xC000
        release(peer)
    until(lambda: "association_released" in caplog.text)
    told = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert ("qcnode.intake.storing", "WARNING", f"instance_conflict series={SERIES} sop={KEPT}") in told
    assert any(text.startswith(f"instance_refused sop={SERIES}.2 why=The instance has no Series") for *_, text in told)
    assert all(word not in caplog.text for word in ("Doe", "Jane", "0815"))


class Steps:
    """A ledger that takes its time."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def perform(self, request: object, transfer_syntax: str, data: object, calling_ae: str) -> Answer:
        self.asked.set()
        assert self.go.wait(20)
        raise ZeroDivisionError("PATIENT^NAME")


def test_the_ledger_s_delay_with_a_step_holds_up_no_instance_and_its_failure_is_that_association_s(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    steps = Steps()
    node = start(steps, processes=2)
    mpps = "1.2.840.10008.3.1.2.3.3"
    peers = [node.peer(mpps), node.peer(mpps), node.peer(), node.peer()]
    for peer in peers[:2]:
        peer.sendall(data_pdu(command("1.2.3", field=0x0140), 3) + data_pdu(b"", 2))
    assert steps.asked.wait(20)
    for number, peer in enumerate(peers[2:], 1):
        assert store(peer, data_set(number=number), f"{SERIES}.{number}") == SUCCESS
        release(peer)
    steps.go.set()
    for peer in peers[:2]:
        assert read_pdu(peer)[0] == 7
    until(lambda: caplog.text.count("step_failed why=ZeroDivisionError") == 2)
    assert "PATIENT" not in caplog.text


# How they end


def test_a_process_that_dies_aborts_its_associations_alone_and_is_replaced(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    node = start()
    before, state = node.pids, node.listener.associations.state
    doomed = node.peer()
    assert store(doomed, data_set(), KEPT) == SUCCESS
    pid = node.serving(1)
    other = node.peer()
    assert store(other, encoded(classic_slice(2, SeriesInstanceUID=f"{SERIES}.7")), f"{SERIES}.2") == SUCCESS
    os.kill(pid, signal.SIGKILL)
    until(lambda: [event.reason for event in node.events if event.kind == "aborted"] == ["its receiving process ended"])
    assert state(SERIES) is AssociationState.ABORTED
    assert state(f"{SERIES}.7") is AssociationState.OPEN
    assert len(node.listener.associations) == 1
    assert store(other, encoded(classic_slice(3, SeriesInstanceUID=f"{SERIES}.7")), f"{SERIES}.3") == SUCCESS
    until(lambda: len(node.pids) == 2)
    assert len(node.pids & before) == 1
    with node.peer() as late:
        assert store(late, data_set(number=4), f"{SERIES}.4") == SUCCESS
    assert f"receiving_process_ended pid={pid} code=-9 associations=1 adopted=0" in caplog.text


def test_what_it_had_stored_and_not_told_is_adopted_while_the_node_runs(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It dies between the disk and the node: what it was putting is still in tmp, under its number."""
    node = start()
    with node.peer() as peer:
        assert store(peer, data_set(), KEPT) == SUCCESS
        pid = node.serving(1)
        untold, half = part10(classic_slice(2)), part10(classic_slice(3))
        temporary = tmp_path / "spool" / "tmp"
        elsewhere = tmp_path / "elsewhere.dcm"
        elsewhere.write_bytes(untold)
        os.link(elsewhere, temporary / f".{pid}-a.partial")
        os.link(elsewhere, tmp_path / "spool" / SERIES / f"{SERIES}.2.dcm")
        (temporary / f".{pid}-b.partial").write_bytes(half[:1000])
        (temporary / f".{pid}9-c.partial").write_bytes(half[:1000])  # another's
        os.kill(pid, signal.SIGKILL)
        until(lambda: f"receiving_process_ended pid={pid} code=-9 associations=1 adopted=1" in caplog.text)
    assert [one.facts.sop_instance_uid for one in node.received] == [KEPT, f"{SERIES}.2"]
    assert node.listener.associations.state(SERIES) is AssociationState.ABORTED
    assert [path.name for path in temporary.iterdir()] == [f".{pid}9-c.partial"]


def test_a_process_that_dies_gives_back_what_it_held(start: Start) -> None:
    node = start(maximum_instance_mb=1)
    peer = node.peer()
    peer.sendall(data_pdu(command(KEPT), 3) + b"".join(data_pdu(bytes(100_000), 0) for _ in range(9)))
    until(lambda: node.listener.room._figures.total(1) >= 900_000)
    os.kill(node.serving(1), signal.SIGKILL)
    until(lambda: node.listener.room._figures.total(1) == 0)


def test_what_it_told_before_it_died_is_known(start: Start) -> None:
    """The node may be slower than the process: the pipe gives out what was told."""
    node, slow = start(), threading.Event()
    real = node.listener._received
    node.listener._received = lambda one: (slow.wait(20), real(one))[1]
    with node.peer() as peer:
        for number in range(1, 6):
            assert store(peer, data_set(number=number), f"{SERIES}.{number}") == SUCCESS
        os.kill(node.serving(1), signal.SIGKILL)
        slow.set()
        until(lambda: len(node.listener.associations) == 0)
    assert [one.facts.sop_instance_uid for one in node.received] == [f"{SERIES}.{n}" for n in range(1, 6)]


def test_processes_that_cannot_live_are_started_ever_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(receivers, "START_SECONDS", 0.0)
    monkeypatch.setattr(receivers, "FIRST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    listener = Listener(Dicom(host="127.0.0.1", port=0, processes=2), Spool(tmp_path), lambda received: None)
    began = time.monotonic()
    listener.start()
    try:
        until(lambda: caplog.text.count("receiving_process_ended") == 8)
        assert time.monotonic() - began > 0.2 + 0.4 + 0.8
        assert not listener.listens
        assert listener.ready == 0 < listener.processes
    finally:
        listener.stop()


def test_a_process_that_takes_no_orders_is_replaced(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "ORDER_SECONDS", 0.2)
    node = start()
    hanging = min(node.pids)
    os.kill(hanging, signal.SIGSTOP)
    peers = []
    while hanging in node.pids:
        peers.append(socket.create_connection(("127.0.0.1", node.listener.port), timeout=20))
        time.sleep(0.02)  # else a busy machine takes more of them than a node does before it is found to hang
    until(lambda: not is_alive(hanging))
    until(lambda: len(node.pids) == 2)
    with node.peer() as peer:
        assert store(peer, data_set(), KEPT) == SUCCESS
    for peer in peers:
        peer.close()


def test_stop_lets_their_associations_come_to_their_end(start: Start) -> None:
    node = start()
    pids, peers = node.pids, [node.peer(), node.peer()]
    for pid in pids:  # as Ctrl-C and a service manager do, to all of the group
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    stopping = threading.Thread(target=node.listener.stop, args=(20.0,))
    stopping.start()
    until(lambda: not node.listener._doors)
    for number, peer in enumerate(peers, 1):
        assert store(peer, data_set(number=number), f"{SERIES}.{number}") == SUCCESS
        release(peer)
    stopping.join(20)
    assert not stopping.is_alive()
    assert [event.kind for event in node.events].count("released") == 2
    assert len(node.received) == 2
    assert not any(map(is_alive, pids))


_NODE = """
import fcntl, sys, time
from pathlib import Path
from qcnode.config import Dicom
from qcnode.intake.listener import Listener
from qcnode.intake.spool import Spool
folder = Path(sys.argv[1])
lock = (folder / "receiving.lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX)
settings = Dicom(host="127.0.0.1", port=0, processes=2)
listener = Listener(settings, Spool(folder), lambda received: None, holding=lock.fileno())
listener.start()
while len([one for one in listener._behind._processes.values() if one.is_ready]) < 2:
    time.sleep(0.01)
print(*(one.popen.pid for one in listener._behind._processes.values()), flush=True)
time.sleep(600)
"""


def test_they_end_with_a_node_that_is_killed_and_no_other_begins_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qcnode.config import StateFolder
    from qcnode.errors import TransientError
    from qcnode.node import _owned

    monkeypatch.setattr("qcnode.node.RECEIVING_END_SECONDS", 0.1)
    node = subprocess.Popen([sys.executable, "-c", _NODE, str(tmp_path)], stdout=subprocess.PIPE)
    assert node.stdout is not None
    with node, node.stdout:
        pids = list(map(int, node.stdout.readline().split()))
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGSTOP)  # one that is slow to end
        node.kill()
    until(lambda: not is_alive(pids[1]))
    assert is_alive(pids[0])
    with pytest.raises(TransientError, match="still receives"), _owned(StateFolder(folder=tmp_path)):
        pass
    os.kill(pids[0], signal.SIGCONT)
    until(lambda: not is_alive(pids[0]))
    with _owned(StateFolder(folder=tmp_path)) as holding:
        assert holding > 0


# What they are


def test_they_are_small_and_have_no_ledger() -> None:
    heavy = {"torch", "monai", "torchio", "highdicom", "sqlalchemy", "fastapi", "typer", "scipy"}
    program = "import sys, qcnode.intake.receiver; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "qcnode.intake.reception" in loaded
    assert not heavy & set(loaded)


def test_their_associations_are_nicer_than_all_else(start: Start) -> None:
    node, ours = start(), os.getpriority(os.PRIO_PROCESS, 0)
    with node.peer():
        tasks = Path(f"/proc/{node.serving(1)}/task").glob("[0-9]*/stat")
        niceness = [int(stat.read_text().rsplit(")", 1)[1].split()[16]) for stat in sorted(tasks)]
    nicer = min(ours + 5, 19)
    assert niceness[0] == ours, "the one that hears orders"
    assert niceness.count(nicer) == 1, "that of the association"
    assert set(niceness) == {ours, nicer}, "a library may have threads of its own"


def test_an_instance_whose_end_comes_later_is_served_by_the_same_process(start: Start) -> None:
    node = start()
    with node.peer() as peer:
        data = data_set()
        peer.sendall(data_pdu(command(KEPT), 3) + data_pdu(data[:-100], 0))
        with node.peer() as other:
            assert store(other, data_set(number=2), f"{SERIES}.2") == SUCCESS
        assert store_answer(peer, data_pdu(data[-100:], 2)) == SUCCESS
