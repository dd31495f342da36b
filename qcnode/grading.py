"""The grading process, seen from the node: jobs go in, outcomes come back, and a process that died is replaced."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor
from typing import TypeVar

from qcnode.config import Assessing
from qcnode.ensemble.weights import read_manifest, shipped_folder, verified_file
from qcnode.errors import QcnodeError, TransientError
from qcnode.verdict import Assessment
from qcnode.worker import Job, Outcome, beyond_interrupts, prepare_process, score, warm_up, work

log = logging.getLogger(__name__)

Result = TypeVar("Result")

GRADING_TIMEOUT_SECONDS = 300.0  # a grading process that needs longer hangs


class Grading:
    """The grading process: torch stays out of the node's own, so that receiving never waits for it."""

    def __init__(self, assessing: Assessing, *, last: bool = False) -> None:
        self._assessing, self._last = assessing, last
        self._stopping = False
        self._pool = self._started()

    @property
    def loaded(self) -> str | None:
        """The id of the ensemble that the process has loaded; None until it has, and while it is replaced."""
        warmed_up = self._warmed_up
        if not warmed_up.done() or warmed_up.cancelled() or warmed_up.exception():
            return None
        return warmed_up.result()

    def submit(self, job: Job) -> Outcome:
        """Run the job and wait for it. A process that died or hangs is replaced, and the error says so.

        Raises TransientError when the node is on its way out: the next start takes the series up again.
        """
        return self._run(work, job)

    def score(self, job: Job) -> Assessment:
        """The same without documents."""
        return self._run(score, job)

    def _run(self, function: Callable[[Job], Result], job: Job) -> Result:
        try:
            return self._pool.submit(function, job).result(timeout=GRADING_TIMEOUT_SECONDS)
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
        pool = ProcessPoolExecutor(
            max_workers=1, mp_context=context, initializer=prepare_process, initargs=(self._last,)
        )
        with beyond_interrupts():
            self._warmed_up = pool.submit(warm_up, self._assessing)
        self._warmed_up.add_done_callback(_tell_if_unfit)
        return pool


def _tell_if_unfit(warmed_up: Future[str]) -> None:
    """Say early what every series would fail on."""
    if not warmed_up.cancelled() and isinstance(error := warmed_up.exception(), QcnodeError):
        log.error("grading_unavailable why=%r", str(error))


def check_weights(assessing: Assessing) -> None:
    """Refuse to start on weights that the grading process would refuse, instead of failing each series."""
    weights = assessing.weights or shipped_folder()
    for entry_of_member in read_manifest(weights).members:
        verified_file(weights, entry_of_member)
