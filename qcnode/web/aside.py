"""What the page has made of images: in a process of its own, because a damaged one may take its process along."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from qcnode.errors import PermanentError
from qcnode.verdict import Assessment
from qcnode.worker import beyond_interrupts, prepare_process

if TYPE_CHECKING:  # loads in the process aside, never in the node's
    from qcnode.reporting.documents import Document

_P = ParamSpec("_P")
_T = TypeVar("_T")
TIMEOUT_SECONDS = 300.0  # a process that needs longer hangs


class Aside:
    """One process, started when it is first needed, replaced when it dies or hangs; its callers take turns."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._changing = threading.Lock()  # held while the process comes or goes
        self._pool: ProcessPoolExecutor | None = None
        self._stopped = False

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The function's result, or the error it raised; PermanentError when its process did not outlive it."""
        with self._turn:
            try:
                return self._submitted(function, *args, **kwargs).result(timeout=TIMEOUT_SECONDS)
            except (BrokenExecutor, TimeoutError, CancelledError) as error:
                with self._changing:
                    self._end()
                raise PermanentError("The images of this series cannot be read; send the series again.") from error

    def stop(self) -> None:
        """End the process, whatever it is doing, for good."""
        with self._changing:
            self._stopped = True
            self._end()

    def _submitted(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        with self._changing:
            if self._stopped:
                raise PermanentError("The node is stopping; look again when it is back.")
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=prepare_process)
            with beyond_interrupts():
                return self._pool.submit(function, *args, **kwargs)

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        processes = list((pool._processes or {}).values())  # before shutdown() forgets them
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
            process.join()


def nifti_of(instances: Sequence[bytes]) -> bytes:
    """A series' volume as gzipped NIfTI; NotAssessable or Excluded where it holds none."""
    from qcnode.imaging.nifti import nifti
    from qcnode.imaging.volume import volume_from_instances

    return nifti(volume_from_instances(instances))


def rejection_of(instances: Sequence[bytes], assessment: Assessment, revision: int, at: datetime, by: str) -> Document:
    """The key object by which this person rejects the series."""
    from qcnode.reporting.documents import rejection_document

    return rejection_document(assessment, instances, revision=revision, at=at, by=by)
