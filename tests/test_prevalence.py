"""What is drawn as measured has the counts of the real scans: by plane, by severity, and how many at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_brains import write_brains

from qcnode.artifacts import Artifact, Plane, Severity
from train.simulate import simulate_scan
from train.simulation.brains import phantoms, sources
from train.simulation.prevalence import (
    AFFECTED,
    SCANS,
    SEVERE,
    WITH_SO_MANY,
    Prevalence,
    draw_measured_levels,
    measured,
)
from train.simulation.severity import is_forbidden

SHARES = {  # of scans with severity > 0, by plane, in the order of Artifact (docs/severity.md)
    Plane.AXIAL: (0.07, 0.05, 0.04, 0.05, 0.27, 0.46, 0.10),
    Plane.CORONAL: (0.06, 0.03, 0.21, 0.02, 0.25, 0.14, 0.15),
    Plane.SAGITTAL: (0.19, 0.69, 0.08, 0.02, 0.23, 0.19, 0.31),
}
ALL = (31, 74, 32, 9, 72, 75, 54)
DRAWS = 20_000  # a plane


def test_the_counts_are_the_published_ones() -> None:
    for plane, shares in SHARES.items():
        np.testing.assert_allclose(np.array(AFFECTED[plane]) / 96, shares, atol=0.005)
    assert tuple(np.sum(list(AFFECTED.values()), axis=0)) == ALL
    assert (
        (sum(WITH_SO_MANY), sum(n * count for n, count in enumerate(WITH_SO_MANY))) == (SCANS, sum(ALL)) == (288, 347)
    )


def test_shares_of_combinations_have_every_count_and_no_hidden_pair() -> None:
    combinations, shares = measured()
    for plane, its in zip(Plane, shares * SCANS, strict=True):
        np.testing.assert_allclose(its @ (combinations > 0), AFFECTED[plane], atol=1e-9)
    together = shares.sum(axis=0) * SCANS
    np.testing.assert_allclose(together @ (combinations == Severity.SEVERE), SEVERE, atol=1e-9)
    np.testing.assert_allclose(np.bincount((combinations > 0).sum(axis=1), together), WITH_SO_MANY, atol=1e-9)
    assert not any(is_forbidden(dict(zip(Artifact, levels, strict=True))) for levels in combinations)


def test_drawn_severities_are_as_frequent_as_measured() -> None:
    generator = np.random.default_rng(1)
    drawn = {plane: _drawn(generator, plane) for plane in Plane}
    for plane, levels in drawn.items():
        _assert_close((levels > 0).mean(axis=0), np.array(AFFECTED[plane]) / 96, DRAWS)
    together = np.concatenate(list(drawn.values()))
    count = np.bincount((together > 0).sum(axis=1), minlength=6) / len(together)
    _assert_close(count, np.array(WITH_SO_MANY) / SCANS, len(together))
    severe = (together == Severity.SEVERE).sum(axis=0) / (together > 0).sum(axis=0)
    _assert_close(severe, np.array(SEVERE) / ALL, (together > 0).sum(axis=0))


def _drawn(generator: np.random.Generator, plane: Plane) -> np.ndarray:
    return np.array([list(draw_measured_levels(generator, plane).values()) for _ in range(DRAWS)])


def _assert_close(found: np.ndarray, share: np.ndarray, count: int | np.ndarray) -> None:
    """Within four standard errors of a share of so many."""
    np.testing.assert_array_less(np.abs(found - share), 4 * np.sqrt(share * (1 - share) / count))


@pytest.mark.parametrize("run", [1, 2])
def test_a_scan_of_measured_prevalence_has_the_plane_its_severities_were_drawn_for(run: int, tmp_path: Path) -> None:
    found = sources(write_brains(tmp_path)) + phantoms(24)
    simulated, record = simulate_scan(found, 6, run, prevalence=Prevalence.MEASURED)
    generator = np.random.default_rng([6, run])
    plane = list(Plane)[generator.integers(3)]
    assert simulated.labels == draw_measured_levels(generator, plane)
    assert (record["plane"], record["prevalence"]) == (plane, "measured")
