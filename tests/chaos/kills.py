"""Rounds of SIGKILL: the node, all of it, or one of its children, at any moment of four scanners' work."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from destinations import Destination
from peers import NodeProcess, wait_until
from reckoning import Counts, kept, reckon
from scanners import SCANNERS, Scanner, Shipment, shipment

QUICK = """
[completeness]
grace_seconds = 0.3
quiet_seconds = 2
[eligibility]
minimum_slices = 4
[assessing]
threads = 1
"""
START_SECONDS = 300.0  # that a restart may take on a machine with other work
VICTIMS = {
    "everything": 4,
    "the node alone": 2,
    "a child": 2,
    "a receiving process": 3,
    "everything, and again while it starts": 1,
}


@dataclass
class Chaos:
    """A node, its destinations, and all that was ever sent to it."""

    node: NodeProcess
    destinations: Sequence[Destination]
    note: Callable[[str], None]
    latest_kill_seconds: float = 7.0  # after the first association; later than that, a round's work is usually done
    sent: list[Shipment] = field(default_factory=list)
    kills: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.node.start_seconds = START_SECONDS

    def round(self, generator: random.Random, victim: str | None = None) -> Counts:
        """Four scanners send while something is killed (drawn, where no victim is named); then the reckoning."""
        everything = [[shipment(generator) for _ in range(generator.randint(1, 3))] for _ in range(SCANNERS)]
        scanners = [
            Scanner(f"SCANNER{i}", self.node.port, mine, random.Random(generator.getrandbits(64)), self.note)
            for i, mine in enumerate(everything)
        ]
        mine = [one for each in everything for one in each]
        self.sent += mine
        victim = victim or generator.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        at, again = generator.uniform(0.0, self.latest_kill_seconds), generator.uniform(0.0, 3.0)
        self.note(f"round series={len(mine)} victim={victim!r} at={at:.3f} again={again:.3f}")
        for scanner in scanners:
            scanner.start()
        time.sleep(at)  # the moment is the experiment
        acknowledged = sum(len(one.acknowledged) for one in mine)
        self._kill(victim, again, generator)
        self.kills[victim] = self.kills.get(victim, 0) + 1
        self.note(f"killed victim={victim!r} acknowledged={acknowledged}")
        at_once = kept(self.node, mine)
        for scanner in scanners:
            scanner.join(120)
        if silent := [scanner.name for scanner in scanners if scanner.is_alive()]:
            self.note(f"scanners still at work: {silent}")
            for scanner in scanners:
                scanner.given_up.set()
        counts = reckon(self.node, mine, self.destinations)
        counts.lost, counts.changed = counts.lost + at_once.lost, counts.changed + at_once.changed
        counts.stuck += len(silent)
        self.note(f"reckoned {counts}")
        return counts

    def _kill(self, victim: str, again: float, generator: random.Random) -> None:
        process = self.node.process
        assert process is not None
        if victim in ("a child", "a receiving process"):
            whose = is_receiver if victim == "a receiving process" else is_worker
            children = sorted(filter(whose, descendants(process.pid)))
            if children:
                pid = generator.choice(children)
                self.note(f"kill child={pid} of {children} args={command_line(pid)[-120:]!r}")
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        if victim == "the node alone":
            children = descendants(process.pid)
            process.kill()
            process.wait()
            wait_until(lambda: not any(map(is_alive, children)), 30, "the end of the dead node's children")
        else:
            self.node.kill()
        if victim.endswith("starts"):
            self._killed_while_starting(again)
        self.node.start()

    def _killed_while_starting(self, after: float) -> None:
        old = self.node.process

        def start() -> None:
            with suppress(AssertionError):  # it ended while it was waited for, as it should
                self.node.start()

        starting = threading.Thread(target=start)
        starting.start()
        wait_until(lambda: self.node.process is not old, 10, "the new process")
        time.sleep(after)  # the moment is the experiment
        self.node.kill()
        starting.join()


def descendants(pid: int) -> list[int]:
    """All processes that this one, or one of its children, started."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended since we looked
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def is_alive(pid: int) -> bool:
    """Whether the process still runs; one that ended and waits to be asked how does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def is_worker(pid: int) -> bool:
    """Whether it does work of the node's, as multiprocessing's own tracker does not."""
    return "resource_tracker" not in command_line(pid)


def is_receiver(pid: int) -> bool:
    """Whether it is a receiving process."""
    return "qcnode.intake.receiver" in command_line(pid)


def command_line(pid: int) -> str:
    """Its arguments; empty for one that ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
