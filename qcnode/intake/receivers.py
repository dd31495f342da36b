"""The receiving processes, seen from the node: connections go out, news come in, and one that died is replaced.

Nothing that a dying process told is lost, nor what it had stored and not told: that is put again from what it left.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Protocol

from qcnode.config import Dicom
from qcnode.errors import PermanentError, trail
from qcnode.intake import channel
from qcnode.intake.association import Answer
from qcnode.intake.associations import AssociationEvent
from qcnode.intake.completeness import AssociationState
from qcnode.intake.facts import read_facts
from qcnode.intake.reception import Home
from qcnode.intake.room import Figures, Room
from qcnode.intake.spool import Spool
from qcnode.intake.storing import Received

log = logging.getLogger(__name__)

START_SECONDS = 60.0  # that the first process may take until the node goes on without it
ORDER_SECONDS = 10.0  # a process that takes no order for so long hangs
SETTLED_SECONDS = 60.0  # one that lived for so long is replaced at once
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0  # before one that dies again and again is replaced
_END_SECONDS = 5.0  # that a process may need to end, beyond its network timeout


class Keeper(Home, Protocol):
    """The node, which hears of what a dead process left too."""

    def adopted(self, one: Received) -> None:
        """An instance lies in the spool that a process stored which died before it told."""


@dataclass
class _Process:
    popen: subprocess.Popen[bytes]
    orders: socket.socket
    news: Connection
    is_ready: bool = False
    connections: dict[int, AssociationEvent | None] = field(default_factory=dict)  # with the event of the opening


class Receivers:
    """So many processes, each with a thread of the node's that starts it, hears what it tells, and buries it."""

    def __init__(
        self,
        settings: Dicom,
        spool: Spool,
        figures: Figures,
        home: Keeper,
        count: int,
        *,
        offers_steps: bool,
        holding: int | None,
    ) -> None:
        """holding: descriptor of a lock that is free again only when no process is left to hold it."""
        self._settings, self._spool, self._figures, self._home = settings, spool, figures, home
        self._count, self._offers_steps = count, offers_steps
        self._holding = () if holding is None else (holding,)
        self._processes: dict[int, _Process] = {}
        self._keepers: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopping, self._serving = threading.Event(), threading.Event()

    @property
    def ready(self) -> int:
        """How many processes take connections."""
        return sum(process.is_ready for process in list(self._processes.values()))

    @property
    def connections(self) -> int:
        """How many are open, with or without an association."""
        return sum(len(process.connections) for process in list(self._processes.values()))

    def start(self) -> None:
        """Start them, and wait until one of them serves."""
        self._stopping.clear()
        self._serving.clear()
        self._keepers = [
            threading.Thread(target=self._keep, args=(number,), name=f"receiver-{number}", daemon=True)
            for number in range(self._count)
        ]
        for keeper in self._keepers:
            keeper.start()
        self._serving.wait(START_SECONDS)

    def serve(self, connected: socket.socket, address: str, number: int, tls: ssl.SSLContext | None) -> None:
        """Hand the connection to the process that has the fewest."""
        order = pickle.dumps(channel.Serve(number, address, tls is not None))
        with connected:
            while process := self._idlest(number):
                if self._ordered(process, order, connected.fileno()):
                    return
                with self._lock:
                    process.connections.pop(number, None)
            log.warning("connection_refused address=%s why='no receiving process takes it'", address)

    def stop(self, drain_seconds: float) -> None:
        """Have open associations come to their end in this time, and the processes end."""
        with self._lock:
            self._stopping.set()
            processes = list(self._processes.values())
        for process in processes:
            if process.is_ready:
                self._ordered(process, pickle.dumps(channel.Stop(drain_seconds)))
            else:
                process.popen.kill()
        deadline = time.monotonic() + drain_seconds + self._settings.network_timeout_seconds + _END_SECONDS
        for keeper in self._keepers:
            keeper.join(max(0.0, deadline - time.monotonic()))
        for process in processes:
            process.popen.kill()  # what still runs hangs
        for keeper in self._keepers:
            keeper.join()
        self._keepers.clear()

    # To a process

    def _idlest(self, number: int) -> _Process | None:
        """The ready process with the fewest connections; it has this one from now on."""
        with self._lock:
            ready = [process for process in self._processes.values() if process.is_ready]
            if not ready:
                return None
            process = min(ready, key=lambda one: len(one.connections))
            process.connections[number] = None
            return process

    def _ordered(self, process: _Process, order: bytes, descriptor: int | None = None) -> bool:
        """Give the order; one who does not take it is no more, at the latest from now on."""
        try:
            socket.send_fds(process.orders, [order], [] if descriptor is None else [descriptor])
        except OSError as error:
            log.debug("order_not_taken process=%d why=%r", process.popen.pid, str(error))
            process.is_ready = False
            process.popen.kill()
            return False
        return True

    # From a process: in the thread that keeps it

    def _keep(self, number: int) -> None:
        # A process begins with the signals blocked that its thread has blocked, and keeps them so: Ctrl-C and SIGTERM
        # reach the whole group, and the node ends this process itself, when its associations are over.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        pause = 0.0
        while not self._stopping.wait(pause):
            began = time.monotonic()
            try:
                process = self._started(number)
            except OSError as error:
                log.error("receiving_process_not_started why=%r", error.strerror)
            else:
                self._hear(process)
                self._bury(number, process)
            settled = time.monotonic() - began > SETTLED_SECONDS
            pause = 0.0 if settled else min(max(FIRST_PAUSE_SECONDS, 2 * pause), LONGEST_PAUSE_SECONDS)

    def _started(self, number: int) -> _Process:
        level = logging.getLogger("qcnode").getEffectiveLevel()
        begin = channel.Begin(self._settings, self._spool.folder, number, self._count, self._offers_steps, level)
        orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        news, told = multiprocessing.Pipe(duplex=False)
        with ExitStack() as undo, theirs, told:
            undo.enter_context(orders)
            undo.enter_context(news)
            handed = (theirs.fileno(), told.fileno(), self._figures.descriptor)
            orders.settimeout(ORDER_SECONDS)
            orders.send(pickle.dumps(begin))
            # A program of its own: a fork of a process with threads inherits their locks. It finds what the node found.
            popen = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-W", "ignore", "-m", "qcnode.intake.receiver", *map(str, handed)],
                pass_fds=(*handed, *self._holding),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
            )
            undo.pop_all()
        process = _Process(popen, orders, news)
        with self._lock:
            self._processes[number] = process
            if self._stopping.is_set():
                popen.kill()
        return process

    def _hear(self, process: _Process) -> None:
        """Until its end: the pipe gives out what was told, then that there is nobody any more."""
        while True:
            try:
                self._heed(process, process.news.recv())
            except (EOFError, OSError):
                return
            except Exception as error:  # of what it told, or of the node's own: nobody hears it any more
                log.error("receiving_failed why=%s where=%r", type(error).__name__, trail(error))
                return

    def _heed(self, process: _Process, news: channel.News) -> None:
        match news:
            case channel.Arrived(number, one):
                self._home.arrived(number, one)
            case channel.Opening(question, number):
                self._reply(process, question, self._home.opened(number))
            case channel.Step():
                threading.Thread(target=self._perform, args=(process, news), name="step", daemon=True).start()
            case channel.Ended(number, state):
                self._home.ended(number, state)
            case channel.Happened(number, event):
                process.connections[number] = event
                self._home.happened(number, event)
            case channel.Left(number):
                with self._lock:
                    del process.connections[number]
            case channel.Ready():
                process.is_ready = True
                self._serving.set()
                log.info("receiving_process_started pid=%d", process.popen.pid)
            case channel.Logged(record):
                if (logger := logging.getLogger(record.name)).isEnabledFor(record.levelno):
                    logger.handle(record)

    def _reply(self, process: _Process, question: int, answer: bool | Answer | None) -> None:
        self._ordered(process, pickle.dumps(channel.Reply(question, answer)))

    def _perform(self, process: _Process, step: channel.Step) -> None:
        """In a thread of its own: the ledger may be locked for longer than instances can wait."""
        answer = None
        try:
            answer = self._home.perform(step.request, step.transfer_syntax, [step.data], step.calling_ae)
        except Exception as error:  # one association's failure must not be another's
            log.error("step_failed why=%s where=%r", type(error).__name__, trail(error))
        self._reply(process, step.question, answer)

    # After its end

    def _bury(self, number: int, process: _Process) -> None:
        with self._lock:
            process.is_ready = False
        process.popen.kill()  # it may have closed the pipe alone
        code = process.popen.wait()
        process.orders.close()
        process.news.close()
        self._figures[Room.FIRST + number] = 0
        adopted, aborted = self._adopt(process.popen.pid), 0
        for connection, event in process.connections.items():
            self._home.ended(connection, AssociationState.ABORTED)
            if event is not None and event.kind == "established":
                aborted += 1
                why = "its receiving process ended"
                lost = AssociationEvent("aborted", event.calling_ae, event.called_ae, event.address, _now(), why)
                self._home.happened(connection, lost)
        with self._lock:
            del self._processes[number]
        if aborted or not self._stopping.is_set():
            log.error(
                "receiving_process_ended pid=%d code=%d associations=%d adopted=%d",
                *(process.popen.pid, code, aborted, adopted),
            )

    def _adopt(self, pid: int) -> int:
        """Put again what it may have stored and not told, as if its sender had; the next start tries what cannot be."""
        count = 0
        try:
            for part10 in self._spool.left_by(pid):
                facts = read_facts(part10)
                receipt = self._spool.put(part10, facts.series_instance_uid, facts.sop_instance_uid)
                self._home.adopted(Received(facts, receipt, facts.source_ae_title or "", _now()))
                count += 1
        except (OSError, PermanentError) as error:
            log.error("adoption_failed pid=%d why=%s", pid, type(error).__name__)
        return count


def _now() -> datetime:
    return datetime.now(UTC)
