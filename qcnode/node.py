"""The node: listener, recorder, scheduler, grading process and page over one state folder."""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import queue
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from qcnode.config import Assessing, Settings, StateFolder
from qcnode.delivery import outbox
from qcnode.ensemble.weights import read_manifest, shipped_folder, verified_file
from qcnode.errors import ConfigError, QcnodeError, TransientError
from qcnode.intake.listener import AssociationEvent, Listener, Received
from qcnode.intake.spool import Spool
from qcnode.ledger.store import Store
from qcnode.steps import adopt, assemble_once, assess_once, entry, retain_once
from qcnode.web.server import WebServer
from qcnode.worker import Job, Outcome, prepare_process, warm_up, work

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0  # how often each kind of work is looked for when no event wakes it earlier
RETENTION_TICK_SECONDS = 600.0
GRADING_TIMEOUT_SECONDS = 300.0  # a grading process that needs longer hangs
_UNUSUAL = ("aborted", "rejected")  # what becomes of an association that is worth an event
BATCH = 256  # instances that the recorder writes in one transaction at the most


def utc_now() -> datetime:
    """The time, with its zone; everything inside takes it as an argument."""
    return datetime.now(UTC)


class Grading:
    """The grading process: torch stays out of the node's own, so that receiving never waits for it."""

    def __init__(self, assessing: Assessing) -> None:
        self._assessing = assessing
        self._stopping = False
        self._pool = self._started()

    def submit(self, job: Job) -> Outcome:
        """Run the job and wait for it. A process that died or hangs is replaced, and the error says so.

        Raises TransientError when the node is on its way out: the next start takes the series up again.
        """
        try:
            return self._pool.submit(work, job).result(timeout=GRADING_TIMEOUT_SECONDS)
        except (BrokenExecutor, TimeoutError, CancelledError, RuntimeError) as error:
            if self._stopping:
                raise TransientError("The node is stopping; the series is graded at its next start.") from error
            if isinstance(error, BrokenExecutor | TimeoutError):
                self._end()
                self._pool = self._started()
            raise

    def stop(self) -> None:
        """End the process, whatever it is doing; an unfinished series is claimed again at the next start."""
        self._stopping = True
        self._end()

    def _end(self) -> None:
        processes = list((self._pool._processes or {}).values())  # before shutdown() forgets them
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
            process.join()

    def _started(self) -> ProcessPoolExecutor:
        # spawn: a fork of a process with threads inherits their locks.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=prepare_process)
        pool.submit(warm_up, self._assessing).add_done_callback(_tell_if_unfit)
        return pool


def _tell_if_unfit(warmed_up: Future[str]) -> None:
    """Say early what every series would fail on."""
    if not warmed_up.cancelled() and isinstance(error := warmed_up.exception(), QcnodeError):
        log.error("grading_unavailable why=%r", str(error))


class Node:
    """One node at work, from start() to stop(). Its state folder is its own: a second node on it refuses to start."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._arrivals: queue.SimpleQueue[Received | AssociationEvent | None] = queue.SimpleQueue()
        self._running = ExitStack()
        self._ending = threading.Event()

    def start(self) -> None:
        """Recover, then accept associations. Raises ConfigError for weights, a folder or a port not to be had."""
        folder = self.settings.state.folder
        _check_weights(self.settings.assessing)
        with ExitStack() as undo:
            undo.enter_context(_owned(self.settings.state))
            self.store = undo.enter_context(Store.open(self.settings.state))
            self.spool = Spool(folder)
            self.spool.clear_temporary()
            self.store.recover(utc_now())
            adopt(self.store, self.spool, utc_now())
            grading = Grading(self.settings.assessing)
            undo.callback(grading.stop)
            self.listener = Listener(self.settings.dicom, self.spool, self._arrivals.put, self._arrivals.put)
            self.web = WebServer(self.settings.web, self.store, folder)
            self._scheduler = self._scheduled(grading)
            self._scheduler.start()
            # Order of the end: the grading process first, or a scheduler that waits for a job waits for its grade.
            undo.callback(self._scheduler.shutdown)
            undo.callback(grading.stop)
            recorder = threading.Thread(target=self._record, name="recorder")
            recorder.start()
            undo.callback(recorder.join)
            undo.callback(self._arrivals.put, None)
            undo.callback(self._ending.set)
            try:
                self.listener.start()
            except OSError as error:
                where = f"{self.settings.dicom.host}:{self.settings.dicom.port}"
                raise ConfigError(
                    f"Cannot listen on {where} ({error.strerror}); change [dicom] host or port."
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

    def _scheduled(self, grading: Grading) -> BackgroundScheduler:
        """One job for each kind of work, and one for each destination, so that a hanging one holds up no other."""
        senders = outbox.senders(self.settings, self.settings.state.folder)
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(4 + len(senders))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

        def every(seconds: float, name: str, job: Callable[[], None]) -> None:
            scheduler.add_job(_guarded(name, job), "interval", seconds=seconds, id=name, next_run_time=utc_now())

        every(TICK_SECONDS, "assemble", self._assemble)
        every(TICK_SECONDS, "assess", partial(self._assess, grading))
        every(RETENTION_TICK_SECONDS, "retain", self._retain)
        self._deliver_jobs = [f"deliver-{name}" for name in senders]
        for name, sender in senders.items():
            every(TICK_SECONDS, f"deliver-{name}", partial(self._deliver, name, sender))
        return scheduler

    def _assemble(self) -> None:
        ready, again = assemble_once(self.store, self.listener.associations.state, self.settings, utc_now())
        if ready:
            self._wake("assess")
        if again is not None and again < utc_now() + timedelta(seconds=TICK_SECONDS):
            self._wake("assemble", again)

    def _assess(self, grading: Grading) -> None:
        while assess_once(self.store, self.spool, self.settings.state.folder, grading.submit, self.settings, utc_now):
            for name in self._deliver_jobs:
                self._wake(name)

    def _deliver(self, name: str, sender: outbox.Sender) -> None:
        generator = random.Random()
        while outbox.deliver_once(self.store, name, sender, utc_now(), generator):
            pass

    def _retain(self) -> None:
        while retain_once(self.store, self.spool, self.settings.state.retention_days, utc_now()):
            pass

    def _wake(self, name: str, at: datetime | None = None) -> None:
        """Have the job run now instead of at its next tick."""
        try:
            self._scheduler.modify_job(name, next_run_time=at or utc_now())
        except JobLookupError:
            log.debug("wake_missed job=%s", name)  # the scheduler is on its way out

    def _record(self) -> None:
        """Write what arrived into the ledger, as many at a time as are waiting; the spool already holds it for good."""
        while True:
            waiting = [self._arrivals.get()]
            while len(waiting) < BATCH and not self._arrivals.empty():
                waiting.append(self._arrivals.get())
            instances = [entry(one) for one in waiting if isinstance(one, Received)]
            unusual = [one for one in waiting if isinstance(one, AssociationEvent) and one.kind in _UNUSUAL]
            while True:
                try:
                    self.store.record_instances(instances)
                    for one in unusual:
                        detail = {"calling": one.calling_ae, "address": one.address, "why": one.reason}
                        self.store.event(f"association_{one.kind}", None, detail, one.at)
                    break
                except TransientError as error:
                    log.warning("recording_postponed instances=%d why=%r", len(instances), str(error))
                    if self._ending.wait(TICK_SECONDS):
                        return  # the next start adopts them from the spool
            if None in waiting:
                return
            self._wake("assemble")


def _check_weights(assessing: Assessing) -> None:
    """Refuse to start on weights that the grading process would refuse, instead of failing each series."""
    weights = assessing.weights or shipped_folder()
    for entry_of_member in read_manifest(weights).members:
        verified_file(weights, entry_of_member)


def _guarded(name: str, job: Callable[[], None]) -> Callable[[], None]:
    """The job, but a ledger that is out of reach for a moment is a line in the log: the next tick tries again."""

    def run() -> None:
        try:
            job()
        except TransientError as error:
            log.warning("work_postponed job=%s why=%r", name, str(error))

    return run


@contextmanager
def _owned(state: StateFolder) -> Iterator[None]:
    """Hold the state folder; the lock goes with the process, however that ends."""
    try:
        state.folder.mkdir(parents=True, exist_ok=True)
        file = (state.folder / "node.lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"The state folder {state.folder} cannot be used ({error.strerror}); change [state] folder."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"Another node works in {state.folder}; stop it, or give this one its own [state] folder."
            ) from error
        yield
