"""Scans by what could make a difference to how well they are graded: plane, weighting, age."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from train.dataset import Scan, subject_kinds

# Front to back, in mm: what a brain of that age is long, roughly. Simulated scans have a length in place of an age.
_LENGTHS = ((130.0, "as a newborn's"), (155.0, "as an infant's"), (float("inf"), "as a child's or adult's"))


def groups_of(folder: Path, scans: Sequence[Scan]) -> list[tuple[str, ...]]:
    """The groups that each scan of the folder is in.

    Its plane; its subject's kind, where subjects.csv tells it (the column is free: a site may write age groups there);
    weighting and size of the brain, where `simulate` wrote them down beside it.
    """
    kinds = subject_kinds(folder, scans)
    return [
        (f"plane: {scan.plane}", *_named("subject", kinds[scan.subject]), *_recorded(scan.record_path))
        for scan in scans
    ]


def _named(what: str, value: str) -> list[str]:
    return [f"{what}: {value}"] if value else []


def _recorded(record: Path) -> list[str]:
    if not record.is_file():
        return []
    its = json.loads(record.read_text())
    length_mm = its.get("brain_length_mm")
    size = next(name for most_mm, name in _LENGTHS if length_mm < most_mm) if length_mm else ""
    return [*_named("weighting", its.get("weighting", "")), *_named("size", size)]
