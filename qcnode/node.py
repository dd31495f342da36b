"""The node: listener, recorder, scheduler, grading process and page over one state folder."""

from __future__ import annotations

import fcntl
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TextIO

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from qcnode.clock import Jumps, utc_now
from qcnode.config import Settings, StateFolder
from qcnode.delivery import outbox
from qcnode.errors import ConfigError, PermanentError, TransientError
from qcnode.escalation import escalate_once
from qcnode.grading import Grading, check_weights
from qcnode.intake.backlog import Backlog
from qcnode.intake.listener import AssociationEvent, Listener, Received
from qcnode.intake.mpps import ProcedureSteps
from qcnode.intake.spool import Spool
from qcnode.ledger import records
from qcnode.ledger.store import Store
from qcnode.shadowing import Trial, shadow_once
from qcnode.steps import Look, adopt, assemble_once, assess_once, entry, retain_once
from qcnode.web.running import Running
from qcnode.web.server import WebServer

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0  # how often each kind of work is looked for when no event wakes it earlier
RETENTION_TICK_SECONDS = 600.0
SHADOW_TICK_SECONDS = 30.0
RETENTION_JUMP = timedelta(hours=1)  # a clock that is set forward by more makes images old that are not
RETENTION_REST_SECONDS = 86400.0
_UNUSUAL = ("aborted", "rejected")  # what becomes of an association that is worth an event
BATCH = 256  # instances that the recorder writes in one transaction at the most
RECEIVING_END_SECONDS = 20.0  # that receiving processes of a node that was killed may take to end
LONGEST_REST_SECONDS = 0.25  # of the recorder: a stack's grace is counted in seconds


class Node:
    """One node at work, from start() to stop(). Its state folder is its own: a second node on it refuses to start."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._backlog = Backlog()
        self._running = ExitStack()
        self._ending = threading.Event()
        self._waking = threading.Lock()
        self._looks: dict[str, Look] = {}
        self._quiet_clock, self._retention_clock, self._retention_from = Jumps(), Jumps(), 0.0
        self._escalation_clock = Jumps()

    def start(self) -> None:
        """Recover, then accept associations. Raises ConfigError for weights, a folder or a port not to be had."""
        folder = self.settings.state.folder
        check_weights(self.settings.assessing)
        with ExitStack() as undo:
            holding = undo.enter_context(_owned(self.settings.state))
            self.store = undo.enter_context(Store.open(self.settings.state))
            self.spool = Spool(folder)
            self.spool.clear_temporary()
            self.store.recover(utc_now())
            self.store.deliveries.bury(self._receivers(), utc_now())
            adopt(self.store, self.spool, utc_now())
            grading = Grading(self.settings.assessing)
            undo.callback(grading.stop)
            steps = ProcedureSteps(self.store.performed, partial(self._wake, "assemble"))
            add = self._backlog.add
            self.listener = Listener(self.settings.dicom, self.spool, add, add, steps, holding)
            trial = Trial.of(self.settings)
            if trial is not None:
                undo.callback(trial.stop)
            on_trial = trial.ensemble if trial else None
            running = Running(self.settings, self.listener, lambda: grading.loaded, self._wake_deliveries, on_trial)
            self.web = WebServer(self.settings.web, self.store, folder, self.settings.destinations, running)
            self._scheduler = self._scheduled(grading, trial)
            self._scheduler.start()
            # Order of the end: the grading process first, or a scheduler that waits for a job waits for its grade.
            undo.callback(self._scheduler.shutdown)
            undo.callback(grading.stop)
            if trial is not None:
                undo.callback(trial.stop)
            recorder = threading.Thread(target=self._record, name="recorder")
            recorder.start()
            undo.callback(recorder.join)
            watcher = threading.Thread(target=self._watch_clock, name="clock")
            watcher.start()
            undo.callback(watcher.join)
            undo.callback(self._backlog.end)
            undo.callback(self._end)
            try:
                self.listener.start()
            except OSError as error:
                raise ConfigError(
                    f"Cannot listen on {error.filename} ({error.strerror}); change [dicom] host or port."
                ) from error
            undo.callback(self.listener.stop)
            self.web.start()
            undo.callback(self.web.stop)
            self._running = undo.pop_all()
        log.info("node_started ae=%s port=%d", self.settings.dicom.ae_title, self.listener.port)

    def stop(self) -> None:
        """Refuse new associations, record what arrived, and end; what is unfinished goes on at the next start."""
        self._running.close()
        log.info("node_stopped")

    def _scheduled(self, grading: Grading, trial: Trial | None) -> BackgroundScheduler:
        """One job for each kind of work, and one for each destination, so that a hanging one holds up no other."""
        senders = outbox.senders(self.settings, self.settings.state.folder, self._ending.is_set)
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(6 + len(senders))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

        def every(seconds: float, name: str, job: Callable[[], None]) -> None:
            scheduler.add_job(_guarded(name, job), "interval", seconds=seconds, id=name, next_run_time=utc_now())

        every(TICK_SECONDS, "assemble", self._assemble)
        every(TICK_SECONDS, "assess", partial(self._assess, grading))
        every(RETENTION_TICK_SECONDS, "retain", self._retain)
        every(TICK_SECONDS, "escalate", self._escalate)
        if trial is not None:
            every(SHADOW_TICK_SECONDS, "shadow", partial(self._shadow, trial))
        self._deliver_jobs = [f"deliver-{name}" for name in senders]
        for name, sender in senders.items():
            every(TICK_SECONDS, f"deliver-{name}", partial(self._deliver, name, sender))
        return scheduler

    def _watch_clock(self) -> None:
        """Run every job when the clock was moved: a scheduler whose clock was set back by a day waits for a day."""
        jumps = Jumps()
        while not self._ending.wait(TICK_SECONDS):
            if jumps.moved():
                for job in self._scheduler.get_jobs():
                    self._wake(job.id)

    def _assemble(self) -> None:
        if moved := self._quiet_clock.moved():
            self.store.clock_moved(moved, utc_now())
            self._looks.clear()
        associations, arriving = self.listener.associations, self._backlog.series()
        ready, again = assemble_once(self.store, associations.state, self.settings, utc_now(), self._looks, arriving)
        if ready:
            self._wake("assess")
            self._wake_deliveries()
        if again is not None and again < utc_now() + timedelta(seconds=TICK_SECONDS):
            self._wake("assemble", again)

    def _assess(self, grading: Grading) -> None:
        while assess_once(self.store, self.spool, self.settings.state.folder, grading.submit, self.settings, utc_now):
            self._wake_deliveries()
            self._wake("shadow")

    def _shadow(self, trial: Trial) -> None:
        while not self._ending.is_set() and shadow_once(self.store, self.spool, trial, self.settings, utc_now):
            pass

    def _deliver(self, name: str, sender: outbox.Sender) -> None:
        generator = random.Random()
        while not self._ending.is_set() and outbox.deliver_once(self.store, name, sender, utc_now(), generator):
            pass

    def _retain(self) -> None:
        if self._retention_clock.moved() > RETENTION_JUMP:
            log.warning(
                "retention_rests why='The clock was set forward; if that was wrong, there is a day to mend it.'"
            )
            self._retention_from = time.monotonic() + RETENTION_REST_SECONDS
        if time.monotonic() < self._retention_from:
            return
        days, receivers = self.settings.state.retention_days, self._receivers()
        while retain_once(self.store, self.spool, days, utc_now(), receivers):
            pass

    def _escalate(self) -> None:
        if moved := self._escalation_clock.moved():
            self.store.escalations.clock_moved(moved, utc_now())
        if escalate_once(self.store, self.settings.state.folder, self.settings, utc_now()):
            for name in self._deliver_jobs:
                self._wake(name)

    def _receivers(self) -> list[str]:
        """The names of all that something may be due to."""
        return [*(destination.name for destination in self.settings.destinations), *self.settings.alert_names()]

    def _wake(self, name: str, at: datetime | None = None) -> None:
        """Have the job run now instead of at its next tick; not while the node ends.

        A scheduler that shuts down waits for its jobs, and holds the lock that waking needs.
        """
        with self._waking:
            if self._ending.is_set():
                return
            try:
                self._scheduler.modify_job(name, next_run_time=at or utc_now())
            except JobLookupError:
                log.debug("wake_missed job=%s", name)

    def _wake_deliveries(self) -> None:
        for name in self._deliver_jobs:
            self._wake(name)

    def _end(self) -> None:
        """From now on nothing is woken, and nothing waits any more."""
        with self._waking:
            self._ending.set()

    def _record(self) -> None:
        """Write what arrived into the ledger, as many at a time as are waiting; the spool already holds it for good."""
        ended = False
        while not ended:
            waiting, ended = self._backlog.take(BATCH)
            instances = [entry(one) for one in waiting if isinstance(one, Received)]
            unusual = [one for one in waiting if isinstance(one, AssociationEvent) and one.kind in _UNUSUAL]
            while True:
                began = time.monotonic()
                try:
                    self._index(instances)
                    for one in unusual:
                        detail = {"calling": one.calling_ae, "address": one.address, "why": one.reason}
                        self.store.event(f"association_{one.kind}", None, detail, one.at)
                    break
                except TransientError as error:
                    log.warning("recording_postponed instances=%d why=%r", len(instances), str(error))
                    if self._ending.wait(TICK_SECONDS):
                        return  # the next start adopts them from the spool
            self._backlog.recorded(waiting)
            self._wake("assemble")
            # Rest for as long: where much arrives it comes in fewer, larger transactions, and others get their turn.
            self._ending.wait(min(time.monotonic() - began, LONGEST_REST_SECONDS))

    def _index(self, instances: list[records.Received]) -> None:
        """Record the instances at once, or, where the ledger refuses one of them, each for itself."""
        try:
            self.store.record_instances(instances)
        except PermanentError:
            for one in instances:
                try:
                    self.store.record_instances([one])
                except PermanentError as error:  # it stays in the spool, and the next start tries again
                    log.error("instance_not_recorded sop=%s why=%r", one.sop_instance_uid, str(error))


def _guarded(name: str, job: Callable[[], None]) -> Callable[[], None]:
    """The job, but a ledger that is out of reach for a moment is a line in the log: the next tick tries again."""

    def run() -> None:
        try:
            job()
        except TransientError as error:
            log.warning("work_postponed job=%s why=%r", name, str(error))

    return run


@contextmanager
def _owned(state: StateFolder) -> Iterator[int]:
    """Hold the state folder; the lock goes with the process, however that ends.

    Yields the descriptor of a second lock, for receiving processes to hold: while one of a node that was killed can
    still acknowledge an instance, no other node looks what there is.
    """
    try:
        state.folder.mkdir(parents=True, exist_ok=True)
        file, receiving = (state.folder / "node.lock").open("w"), (state.folder / "receiving.lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"The state folder {state.folder} cannot be used ({error.strerror}); change [state] folder."
        ) from error
    with file, receiving:
        if not _locked(file):
            raise ConfigError(
                f"Another node works in {state.folder}; stop it, or give this one its own [state] folder."
            )
        deadline = time.monotonic() + RECEIVING_END_SECONDS
        while not _locked(receiving):
            if time.monotonic() > deadline:
                raise TransientError(
                    f"A process of the node that worked in {state.folder} before still receives; end it."
                )
            time.sleep(0.02)
        yield receiving.fileno()


def _locked(file: TextIO) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
