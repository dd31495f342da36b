"""Subjects → train, validation, test: a person is in one part only, and each kind of subject in all of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SHARES = {TRAIN: 0.70, VALIDATION: 0.12, TEST: 0.18}


def split_subjects(kinds: Mapping[str, str], seed: int, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Each subject's part. kinds: subject → kind; the parts' sizes follow SHARES, within each kind as well.

    The draw depends on the subjects' names and the seed alone, never on the order of rows. Subjects in `known` keep the
    part they have there, so that a corpus may grow without a test subject ever being trained on.
    """
    part_of = {subject: part for subject, part in (known or {}).items() if subject in kinds}
    taken = Counter(part_of.values())
    drawn = sorted(
        kinds.keys() - part_of.keys(), key=lambda s: (kinds[s], hashlib.sha256(f"{seed}/{s}".encode()).digest())
    )
    for subject in drawn:  # kind after kind; the part furthest behind its share gets the next
        part_of[subject] = min(SHARES, key=lambda part: (taken[part] + 0.5) / SHARES[part])
        taken[part_of[subject]] += 1
    return part_of


def subjects_of(part_of: Mapping[str, str], part: str) -> list[str]:
    """The subjects in one part, sorted."""
    return sorted(subject for subject, its in part_of.items() if its == part)
