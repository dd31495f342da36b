"""Faults one by one: each is a node of its own, four scanners or one, one thing that goes wrong, and the reckoning."""

from __future__ import annotations

import os
import random
import shutil
import socket
import sqlite3
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from destinations import Destination, Fault, accepts_then_aborts, refuses_every_third, slow
from kills import QUICK
from peers import NodeProcess, wait_until
from reckoning import Counts, reckon, transfers
from scanners import SCANNERS, Scanner, Shipment, shipment, store
from wire import conversation, established, recorded

Start = Callable[..., NodeProcess]
Note = Callable[[str], None]
Scenario = Callable[[Start, random.Random, Note], Counts]
NETWORK_TIMEOUT_SECONDS = 3.0
SMALL_DISK_MIB = 24


class Skipped(Exception):  # noqa: N818 - it is no error
    """The machine lacks what the scenario needs."""


def destination_is_down(start: Start, generator: random.Random, note: Note) -> Counts:
    """Nobody listens until everything is assessed; then it comes back and gets all of it, once."""
    pacs = Destination("pacs")
    node = start(QUICK + pacs.configuration)
    sent = send(node, generator, note)
    wait_until(lambda: node.status()["states"].get("assessed") == len(sent), 120, "the assessments")
    assert node.status()["deliveries"].keys() == {"pending"}
    with pacs.running():
        return reckon(node, sent, [pacs]) + transfers([pacs])


def destination_accepts_then_aborts(start: Start, generator: random.Random, note: Note) -> Counts:
    """It aborts inside an object, once before it kept it and once after: the second comes twice, the same."""
    counts = _with_fault(start, generator, note, accepts_then_aborts)
    assert counts.sent_again == 1, f"sent again: {counts.sent_again}"
    return counts


def destination_refuses_every_third(start: Start, generator: random.Random, note: Note) -> Counts:
    """Each third object is answered with a failure, and comes again later."""
    return _with_fault(start, generator, note, refuses_every_third)


def destination_is_slow(start: Start, generator: random.Random, note: Note) -> Counts:
    """One takes a second and a half for each object; the other destination must not wait for it."""
    lazy, prompt = Destination("lazy"), Destination("prompt")
    with lazy.running(slow), prompt.running():
        node = start(QUICK + lazy.configuration + prompt.configuration)
        sent = send(node, generator, note)
        wait_until(
            lambda: {r.series_uid for r in prompt.reports.copy()} == {s.series_uid for s in sent}, 120, "the prompt one"
        )
        note(f"prompt is done: prompt={sum(prompt.kept.values())} lazy={sum(lazy.kept.values())}")
        assert sum(lazy.kept.values()) < sum(prompt.kept.values()), "the slow one was as fast: it showed nothing"
        return reckon(node, sent, [lazy, prompt]) + transfers([lazy, prompt])


def sender_aborts_inside_an_object(start: Start, generator: random.Random, note: Note) -> Counts:
    """Connections that are cut in the middle of a P-DATA-TF leave nothing behind; the same instances come later."""
    pacs = Destination("pacs")
    with pacs.running():
        node = start(QUICK + pacs.configuration)
        sent = [shipment(generator) for _ in range(SCANNERS)]
        cut_off(node, sent, generator, note, 24)
        return reckon(node, _sent(node, generator, note, sent), [pacs]) + transfers([pacs])


def cut_off(node: NodeProcess, shipments: list[Shipment], generator: random.Random, note: Note, times: int) -> None:
    """So many associations that are cut inside the first instance of one of the shipments; nothing of them is kept."""
    for number in range(times):
        one = generator.choice(shipments)
        stream = recorded(lambda port, one=one: store(port, one.instances[:1], set()))
        cut = generator.randrange(len(stream[0]) + 100, sum(map(len, stream[:-1])))
        note(f"cut {number} of {one.series_uid} at byte {cut}")
        with established(node.port, stream[0]) as connection:
            connection.sendall(b"".join(stream[1:])[: cut - len(stream[0])])
            if number % 2:  # a reset instead of an end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for one in shipments:
        assert not (node.state / "spool" / one.series_uid).exists(), "half an instance became one"
    wait_until(lambda: not list((node.state / "spool" / "tmp").iterdir()), 30, "the end of what was half written")


def sender_falls_silent(start: Start, generator: random.Random, note: Note) -> Counts:
    """One stops after some slices, one inside an object: both are closed in time, and what arrived is assessed."""
    pacs = Destination("pacs")
    with pacs.running():
        node = start(QUICK + pacs.configuration, dicom=f"network_timeout_seconds = {NETWORK_TIMEOUT_SECONDS}")
        whole = next(one for one in iter(lambda: shipment(generator), None) if len(one.instances) > 1)
        beside = shipment(generator)
        stream = recorded(lambda port: store(port, whole.instances[:8], set()))
        inside = recorded(lambda port: store(port, beside.instances[:1], set()))
        with established(node.port, stream[0]) as first, established(node.port, inside[0]) as second:
            conversation(first, stream[1:-1])  # all but the release
            whole.acknowledged |= {str(one.SOPInstanceUID) for one in whole.instances[:8]}
            second.sendall(b"".join(inside[1:])[:400])
            began = time.monotonic()
            for silent in (first, second):
                silent.settimeout(30)
                with suppress(ConnectionResetError):
                    while silent.recv(4096):
                        pass
            note(f"closed after {time.monotonic() - began:.1f} s of silence")
            assert time.monotonic() - began < 4 * NETWORK_TIMEOUT_SECONDS + 5
        whole.instances = whole.instances[:8]
        return reckon(node, [whole, *_sent(node, generator, note, [beside])], [pacs]) + transfers([pacs])


def ledger_is_locked(start: Start, generator: random.Random, note: Note) -> Counts:
    """Another process holds the ledger, once for seconds and once for longer than the node waits at a time."""
    pacs = Destination("pacs")
    with pacs.running():
        node = start(QUICK + pacs.configuration)
        sent = []
        for seconds in (generator.uniform(3, 6), 35.0):
            holder = sqlite3.connect(node.state / "ledger.sqlite3", isolation_level=None)
            holder.execute("BEGIN EXCLUSIVE")
            note(f"ledger locked for {seconds:.1f} s")
            until = time.monotonic() + seconds
            sent += send(node, generator, note)
            assert time.monotonic() < until, "receiving waited for the ledger"
            time.sleep(until - time.monotonic())
            holder.execute("ROLLBACK")
            holder.close()
        return reckon(node, sent, [pacs]) + transfers([pacs])


def full_disk(start: Start, generator: random.Random, note: Note) -> Counts:
    """The state folder's disk is full for a while: what does not fit is refused, and taken when there is room again."""
    pacs = Destination("pacs")
    node = start(QUICK + pacs.configuration)
    node.stop()
    shutil.rmtree(node.state)
    with _tmpfs(node.state), pacs.running():
        node.start()
        sent = [shipment(generator) for _ in range(SCANNERS)]
        for one in sent[:2]:
            store(node.port, one.instances, one.acknowledged)
        ballast = node.state / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
        refused = []
        for one in sent:
            refused += store(node.port, one.instances, one.acknowledged)
        safe = sum(len(one.acknowledged) for one in sent)
        note(f"full: acknowledged={safe} refused={sorted(map(hex, set(refused)))}")
        assert set(refused) <= {0xA700}, "another status than Out of Resources"
        assert safe < sum(len(one.instances) for one in sent), "the disk was not full: it showed nothing"
        wait_until(lambda: len(list((node.state / "spool").glob("[0-9]*/*.dcm"))) >= safe, 30, "the spool")
        ballast.unlink()
        counts = reckon(node, _sent(node, generator, note, sent), [pacs])
        assert node.stop() == 0
        return counts + transfers([pacs])


def clock_is_moved(start: Start, generator: random.Random, note: Note) -> Counts:
    """The wall clock goes two hours back, then four on, then three back, while series arrive and are delivered."""
    pacs, late = Destination("pacs"), Destination("late")
    with tempfile.TemporaryDirectory() as folder, _movable_clock(Path(folder)) as clock, pacs.running():
        node = start(QUICK + pacs.configuration + late.configuration)
        sent: list[Shipment] = []
        for hours in (0, -2, 2):
            _set(clock, hours)
            note(f"clock at {hours:+d} h")
            sent += send(node, generator, note)
            uids = {one.series_uid for one in sent}
            began = time.monotonic()
            wait_until(
                lambda uids=uids: {r.series_uid for r in pacs.reports.copy()} == uids, 60, f"reports at {hours:+d} h"
            )
            note(f"reported {time.monotonic() - began:.1f} s after the last instance")
        _set(clock, -1)  # what waits for the one that was down must not wait for hours longer
        with late.running():
            return reckon(node, sent, [pacs, late]) + transfers([pacs, late])


SCENARIOS: dict[str, Scenario] = {
    one.__name__: one
    for one in (
        destination_is_down,
        destination_accepts_then_aborts,
        destination_refuses_every_third,
        destination_is_slow,
        sender_aborts_inside_an_object,
        sender_falls_silent,
        ledger_is_locked,
        full_disk,
        clock_is_moved,
    )
}


def send(node: NodeProcess, generator: random.Random, note: Note) -> list[Shipment]:
    """Four scanners with one series each, all acknowledged."""
    return _sent(node, generator, note, [shipment(generator) for _ in range(SCANNERS)])


def _sent(node: NodeProcess, generator: random.Random, note: Note, shipments: list[Shipment]) -> list[Shipment]:
    scanners = [
        Scanner(f"SCANNER{number}", node.port, [one], random.Random(generator.getrandbits(64)), note)
        for number, one in enumerate(shipments)
    ]
    for scanner in scanners:
        scanner.start()
    for scanner in scanners:
        scanner.join(90)
        scanner.given_up.set()
    assert all(one.is_complete for one in shipments), "something was never acknowledged"
    return shipments


def _with_fault(start: Start, generator: random.Random, note: Note, fault: Fault) -> Counts:
    pacs = Destination("pacs")
    with pacs.running(fault):
        node = start(QUICK + pacs.configuration)
        return reckon(node, send(node, generator, note), [pacs]) + transfers([pacs])


@contextmanager
def _tmpfs(folder: Path) -> Iterator[None]:
    """A disk of its own, small, where that may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        raise Skipped("a small disk cannot be mounted here (it takes root)")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _movable_clock(folder: Path) -> Iterator[Path]:
    """A file with the seconds by which the clock is off, for processes that start from now on."""
    library, clock = folder / "movable_clock.so", folder / "clock"
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skipped("there is no C compiler here to build the clock that can be moved")
    source = Path(__file__).with_name("movable_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    clock.write_text("0\n")
    preload = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(clock)}
    os.environ |= preload
    try:
        yield clock
    finally:
        for name in preload:
            del os.environ[name]


def _set(clock: Path, hours: int) -> None:
    moved = clock.with_name("moved")
    moved.write_text(f"{3600 * hours}\n")
    moved.replace(clock)
