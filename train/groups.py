"""Scans by what could make a difference to how well they are graded: plane, weighting, age."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from train.dataset import Scan, subject_kinds

# Front to back, in mm: what a brain of that age is long, roughly. Simulated scans have a length in place of an age.
_LENGTHS = ((130.0, "newborn's size"), (155.0, "infant's size"), (float("inf"), "child's or adult's size"))


def groups_of(folder: Path, scans: Sequence[Scan]) -> list[tuple[str, ...]]:
    """The groups that each scan of the folder is in.

    Its plane; its subject's kind, where subjects.csv tells it (the column is free: a site may write age groups there);
    weighting and size of the brain, where `simulate` wrote them down beside it.
    """
    kinds = subject_kinds(folder, scans)
    return [(scan.plane.value, *filter(None, [kinds[scan.subject]]), *_recorded(scan.record_path)) for scan in scans]


def _recorded(record: Path) -> list[str]:
    if not record.is_file():
        return []
    its = json.loads(record.read_text())
    found = [str(its["weighting"])] if "weighting" in its else []
    if "brain_length_mm" in its:
        found.append(next(name for most_mm, name in _LENGTHS if its["brain_length_mm"] < most_mm))
    return found
