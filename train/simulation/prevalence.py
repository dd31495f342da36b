"""How often artifacts occur: balanced, which teaches the rare ones, or as they were counted on real scans.

Counted were 288 scans of LISA 2024, 96 in each plane, by the raters' labels (docs/severity.md). Which artifacts come
together beyond what these counts say was not counted.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from qcnode.artifacts import Artifact, Plane, Severity
from train.simulation.severity import is_forbidden

SCANS_A_PLANE = 96
SCANS = SCANS_A_PLANE * len(Plane)
AFFECTED = {  # scans with severity 1 or 2, in the order of Artifact
    Plane.AXIAL: (7, 5, 4, 5, 26, 44, 10),
    Plane.CORONAL: (6, 3, 20, 2, 24, 13, 14),
    Plane.SAGITTAL: (18, 66, 8, 2, 22, 18, 30),
}
SEVERE = (1, 9, 2, 1, 22, 4, 7)  # of these, in all planes
WITH_SO_MANY = (88, 102, 62, 26, 7, 3)  # scans with 0, 1, … 5 artifacts, in all planes
_ROUNDS = 40  # after 20 every count is met to 1e-13 of the scans


class Prevalence(StrEnum):
    """What decides how often each severity is drawn."""

    BALANCED = "balanced"  # few artifacts at a time, all alike, moderate and severe alike (draws.draw_levels)
    MEASURED = "measured"


def draw_measured_levels(generator: np.random.Generator, plane: Plane) -> dict[Artifact, Severity]:
    """Severities of one scan in this plane, as often as real scans of it have them."""
    combinations, shares = measured()
    its = shares[list(Plane).index(plane)]
    drawn = combinations[generator.choice(len(combinations), p=its / its.sum())]
    return {artifact: Severity(int(level)) for artifact, level in zip(Artifact, drawn, strict=True)}


@lru_cache(maxsize=1)
def measured() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Combinations of severities (combination, artifact), and which share of all scans has each (plane, combination).

    Every count above is met exactly (to rounding): artifacts by plane, severe ones, and how many a scan has. Of all
    shares that do so, and leave out forbidden pairs and more than five artifacts, these say the least beyond it (the
    largest entropy): iterative proportional fitting, doi:10.1214/aoms/1177731829.
    """
    combinations = np.array(
        [levels for levels in product(range(len(Severity)), repeat=len(Artifact)) if _occurs(levels)]
    )
    affected, plane = combinations > 0, np.arange(len(Plane))[:, None]
    totals = np.array([AFFECTED[its] for its in Plane])
    # Each constraint: which cell every (plane, combination) is in, and how many scans are in each cell.
    constraints = [(affected.sum(axis=1) + 0 * plane, np.array(WITH_SO_MANY))]
    for index, severe in enumerate(SEVERE):
        its, of_all = totals[:, index], totals[:, index].sum()
        constraints += [
            (affected[:, index] + 2 * plane, np.stack([SCANS_A_PLANE - its, its], axis=1).ravel()),
            (combinations[:, index] + 0 * plane, np.array([SCANS - of_all, of_all - severe, severe])),
        ]
    shares = np.ones((len(Plane), len(combinations)))
    for _ in range(_ROUNDS):
        for cell, count in constraints:
            shares *= (count / SCANS / np.bincount(cell.ravel(), shares.ravel()))[cell]
    return combinations, shares


def _occurs(levels: tuple[int, ...]) -> bool:
    are_few = sum(level > 0 for level in levels) < len(WITH_SO_MANY)
    return are_few and not is_forbidden(dict(zip(Artifact, map(Severity, levels), strict=True)))
