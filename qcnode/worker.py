"""One job of the grading process: bytes in, assessment and documents out. Nothing is shared with the node's process."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

from qcnode.artifacts import Artifact
from qcnode.config import Assessing, Eligibility
from qcnode.verdict import Assessment, Rule, of_a_part

if TYPE_CHECKING:  # what grades and what builds documents loads in the grading process, never in the node's
    from qcnode.ensemble.runtime import Ensemble
    from qcnode.reporting.documents import Document


@dataclass(frozen=True)
class Job:
    """One revision of one series, with all that its assessment depends on.

    `at` dates the documents: it belongs to the revision, not to the attempt, so a second attempt builds the same bytes.
    """

    instances: tuple[bytes, ...]
    revision: int
    at: datetime
    predecessor_uid: str | None
    policy: Mapping[Artifact, Rule]
    eligibility: Eligibility
    assessing: Assessing
    announced: int = 0  # instances, by the word of the scanner; 0 without it
    missing: int = 0  # of them


@dataclass(frozen=True)
class Outcome:
    """What the job gives back; an excluded series has no documents."""

    assessment: Assessment
    documents: tuple[Document, ...]
    planes: bytes = b""  # the sections as a PNG for the page; empty without a volume


@contextmanager
def beyond_interrupts() -> Iterator[None]:
    """A process that is started within never hears Ctrl-C, not even while it imports.

    It begins with the signals blocked that its thread has blocked, and keeps them so. Ctrl-C reaches the whole group,
    and the node ends its processes itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepare_process(last: bool = False) -> None:
    """Have the grading process end with the node's, however that ends, and keep it quiet.

    Libraries' warnings and log lines may quote elements of a header, so none of them reaches the log.
    last: whoever else wants the processor has it first.
    """
    if last:
        os.nice(19)
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
    if node := multiprocessing.parent_process():
        threading.Thread(target=_end_with, args=(node.sentinel,), name="watch", daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


@cache
def _ensemble(weights: Path | None, device: str, threads: int | None) -> Ensemble:
    from qcnode.ensemble.runtime import Ensemble

    return Ensemble.load(weights, device, threads)


def warm_up(assessing: Assessing) -> str:
    """Load all that grading needs, so that the first series does not wait for it; returns the ensemble's id."""
    import qcnode.assess
    import qcnode.reporting.documents  # noqa: F401

    return _ensemble(assessing.weights, assessing.device, assessing.threads).id


def score(job: Job) -> Assessment:
    """Assess the series, and build nothing."""
    from qcnode.assess import assess

    ensemble = _ensemble(job.assessing.weights, job.assessing.device, job.assessing.threads)
    return replace(assess(job.instances, ensemble, job.policy, job.eligibility), preview=(), pictures={})


def work(job: Job) -> Outcome:
    """Assess the series and build its documents."""
    from qcnode.assess import assess
    from qcnode.imaging.planes import planes
    from qcnode.reporting.documents import documents

    ensemble = _ensemble(job.assessing.weights, job.assessing.device, job.assessing.threads)
    assessment = assess(job.instances, ensemble, job.policy, job.eligibility)
    if assessment.excluded is not None:
        return Outcome(assessment, ())
    assessment = replace(assessment, verdict=of_a_part(assessment.verdict, job.missing, job.announced))
    built = documents(assessment, job.instances, revision=job.revision, at=job.at, predecessor_uid=job.predecessor_uid)
    return Outcome(assessment, built, planes(assessment.preview) if assessment.preview else b"")
