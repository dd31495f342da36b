"""The unit of work that has weights on trial grade what the active ones graded, while nobody waits for anything."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from datetime import datetime

from qcnode.config import Assessing, Settings
from qcnode.ensemble.weights import read_manifest
from qcnode.errors import QcnodeError, TransientError, trail
from qcnode.grading import Grading, check_weights
from qcnode.intake.spool import Spool
from qcnode.ledger.store import Store
from qcnode.verdict import Assessment
from qcnode.worker import Job

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """Weights on trial, at work in a process of their own to which everybody else is preferred (nice 19)."""

    ensemble: str
    assessing: Assessing
    score: Callable[[Job], Assessment]
    stop: Callable[[], None]

    @classmethod
    def of(cls, settings: Settings) -> Trial | None:
        """What the configuration names; None without one, and, with a line in the log, for one that is not fit."""
        assessing = settings.assessing.on_trial()
        if assessing is None or assessing.weights is None:
            return None
        try:
            check_weights(assessing)
            name = read_manifest(assessing.weights).id
        except QcnodeError as error:
            log.error("shadow_unavailable why=%r", str(error))  # no reason for the node not to start
            return None
        grading = Grading(assessing, last=True)
        return cls(name, assessing, grading.score, grading.stop)


def shadow_once(store: Store, spool: Spool, trial: Trial, settings: Settings, clock: Callable[[], datetime]) -> bool:
    """Grade one scan by the weights on trial, and keep what they say beside the assessment; False without any.

    Nothing is begun while a series arrives or waits for its verdict. What cannot be graded is kept, with its reason.
    """
    queues = store.overview.counters().queues
    if queues["complete"] or queues["assess"] or queues["finish"]:
        return False
    scan = store.shadows.next(trial.ensemble)
    if scan is None:
        return False
    said: Assessment | str
    try:
        instances = tuple(spool.read(scan.series_uid, sop) for sop in scan.sop_instance_uids)
        said = trial.score(
            Job(
                instances=instances,
                revision=scan.revision,
                at=clock(),
                predecessor_uid=None,
                policy=settings.full_policy(),
                eligibility=settings.eligibility,
                assessing=trial.assessing,
            )
        )
    except TransientError:
        raise  # the node is stopping
    except TimeoutError:
        log.warning("shadow_postponed series=%s why='The processor was busy for too long.'", scan.series_uid)
        return False
    except FileNotFoundError:
        said = "Its images are gone."
    except BrokenExecutor:
        said = "The grading process ended while it graded this series."
    except QcnodeError as error:
        said = str(error)
    except Exception as error:  # the worker's boundary: one bad series must not stop the others
        log.error("shadow_failed series=%s error=%s where=%r", scan.series_uid, type(error).__name__, trail(error))
        said = f"{type(error).__name__} while grading; see the log."
    return store.shadows.keep(scan, trial.ensemble, said, clock())
