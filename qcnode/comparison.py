"""Counts of what two ensembles say of the same scans → the figures that people compare them by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcnode.agreement import kappa_of
from qcnode.artifacts import Artifact, Severity
from qcnode.ledger.shadows import Compared
from qcnode.verdict import Decision


@dataclass(frozen=True)
class Agreement:
    """How far two graders agree. table: (3, 3) counts, the first one's severity by the second one's.

    kappa: quadratic; None where chance could not tell it, as with one severity alone.
    """

    table: tuple[tuple[int, ...], ...]
    scans: int
    same: float | None
    kappa: float | None


@dataclass(frozen=True)
class Row:
    """One artifact: the active weights beside those on trial, and people beside each."""

    artifact: Artifact
    ensembles: Agreement
    active: Agreement  # people beside the active weights
    shadow: Agreement  # people beside those on trial


def rows(compared: Compared) -> list[Row]:
    """The artifacts, in their order."""
    return [
        Row(
            artifact,
            _agreement(compared.grades[artifact]),
            *map(_agreement, compared.people[artifact]),
        )
        for artifact in Artifact
    ]


def verdicts(compared: Compared) -> list[tuple[Decision, list[int]]]:
    """(active verdict, how often the weights on trial say accept, review, rescan) for each verdict on a graded scan."""
    graded = (Decision.ACCEPT, Decision.REVIEW, Decision.RESCAN)
    return [(one, [compared.verdicts[one, other] for other in graded]) for one in graded]


def to_json(compared: Compared) -> dict[str, Any]:
    """As `qcnode shadow compare --json` prints it."""

    def words(agreement: Agreement) -> dict[str, Any]:
        return {
            "scans": agreement.scans,
            "same": agreement.same,
            "quadratic_kappa": agreement.kappa,
            "table": [list(line) for line in agreement.table],
        }

    return {
        "active": compared.active,
        "shadow": compared.shadow,
        "scans": compared.scans,
        "ungraded": compared.ungraded,
        "artifacts": {
            row.artifact.value: {
                "active_and_shadow": words(row.ensembles),
                "people_and_active": words(row.active),
                "people_and_shadow": words(row.shadow),
            }
            for row in rows(compared)
        },
        "verdicts": {one.value: counts for one, counts in verdicts(compared)},
        "different": [{"series_uid": uid, "steps": steps} for uid, steps in compared.different],
    }


def _agreement(cells: Mapping[tuple[Severity, Severity], int]) -> Agreement:
    table: NDArray[np.float64] = np.array([[cells.get((a, b), 0) for b in Severity] for a in Severity], np.float64)
    scans = int(table.sum())
    several = np.count_nonzero(table.sum(0) + table.sum(1)) > 1 and scans > 1
    return Agreement(
        table=tuple(tuple(int(n) for n in line) for line in table),
        scans=scans,
        same=float(table.trace() / scans) if scans else None,
        kappa=kappa_of(table) if several else None,
    )
