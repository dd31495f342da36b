"""Laws of cross-validation: patients stay whole, everybody is tested once, severities are spread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcnode.artifacts import Artifact, Plane
from qcnode.errors import ConfigError
from train.dataset import Scan
from train.split import TEST, TRAIN, VALIDATION
from train.studies.counts import counts_table, refuse_absent
from train.studies.folds import folds, parts


def some_scans(subjects: int, seed: int) -> list[Scan]:
    """One to three scans a subject, with rare severities."""
    generator = np.random.default_rng(seed)
    scans = []
    for number in range(subjects):
        for plane in list(Plane)[: int(generator.integers(1, 4))]:
            labels = tuple(int(n) for n in generator.choice(3, size=len(Artifact), p=(0.8, 0.12, 0.08)))
            scans.append(Scan(Path(f"LISA_{number:04d}_LF_{plane.suffix}.nii"), f"LISA_{number:04d}", plane, labels))
    return scans


@settings(max_examples=15, deadline=None)
@given(st.integers(5, 25), st.integers(3, 5), st.integers(0, 99))
def test_over_the_folds_everybody_is_tested_once_validates_once_and_is_never_two_things(
    subjects: int, count: int, seed: int
) -> None:
    scans = some_scans(subjects, seed)
    fold_of = folds(scans, count, seed)
    assert fold_of.keys() == {scan.subject for scan in scans}
    splits = [parts(fold_of, fold) for fold in range(max(fold_of.values()) + 1)]
    for subject in fold_of:
        roles = [split[subject] for split in splits]
        assert (roles.count(TEST), roles.count(VALIDATION)) == (1, 1)
        assert roles.count(TRAIN) == len(splits) - 2


def test_a_rare_severity_is_in_every_fold() -> None:
    scans = some_scans(200, 1)
    fold_of = folds(scans, 5, 1)
    for index in range(len(Artifact)):
        severe = np.bincount([fold_of[scan.subject] for scan in scans if scan.labels[index] == 2], minlength=5)
        assert severe.min() >= 0.5 * severe.mean(), "an even share is about six"


def test_the_seed_and_the_scans_alone_decide() -> None:
    scans = some_scans(40, 2)
    assert folds(scans, 4, 7) == folds(scans, 4, 7) != folds(scans, 4, 8)


@pytest.mark.parametrize("count", [2, 41])
def test_too_few_or_too_many_folds_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="choose from 3 to their number"):
        folds(some_scans(40, 0), count, 0)


def test_counts_are_shown_by_plane_and_part() -> None:
    scans = [
        Scan(Path("a"), "A", Plane.AXIAL, (0, 0, 0, 0, 2, 0, 0)),
        Scan(Path("b"), "A", Plane.SAGITTAL, (0, 0, 0, 0, 2, 0, 0)),
        Scan(Path("c"), "B", Plane.AXIAL, (1, 0, 0, 0, 0, 0, 0)),
    ]
    table = counts_table(scans, {"A": TRAIN, "B": TEST})
    assert "| scans 0 / 1 / 2 | axial | coronal | sagittal | train | test |" in table
    assert "| Motion | 1 / 0 / 1 | 0 / 0 / 0 | 0 / 0 / 1 | 0 / 0 / 2 | 1 / 0 / 0 |" in table
    assert "axial | coronal | sagittal |\n" in counts_table(scans, {})


def test_a_severity_without_a_training_scan_is_refused_whatever_the_others_hold() -> None:
    labels = (0, 0, 0, 0, 1, 0, 0)
    scans = [Scan(Path(s), s, Plane.AXIAL, tuple(index * n for n in labels)) for index, s in enumerate("ABC")]
    refuse_absent(scans, dict.fromkeys("ABC", TRAIN), [Artifact.MOTION])
    with pytest.raises(ConfigError, match="No training scan has Motion of severity 2"):
        refuse_absent(scans, {"A": TRAIN, "B": TRAIN, "C": TEST}, [Artifact.MOTION])
    with pytest.raises(ConfigError, match="Noise of severity 1"):
        refuse_absent(scans, dict.fromkeys("ABC", TRAIN), list(Artifact))
