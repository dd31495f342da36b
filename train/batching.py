"""Labels → the batches of one epoch, as index arrays. Pure: randomness is a generator."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, count, islice

import numpy as np
from numpy.typing import NDArray

from qcnode.artifacts import Severity
from qcnode.errors import ConfigError

Batch = NDArray[np.int64]


def standard_batches(count: int, size: int, generator: np.random.Generator) -> list[Batch]:
    """Every scan once, shuffled; a last batch of a single scan, which batch statistics cannot use, is left out."""
    order = generator.permutation(count)
    batches = [order[start : start + size] for start in range(0, count, size)]
    return [batch for batch in batches if len(batch) > 1]


def rotating_batches(labels: NDArray[np.int64], epoch: int, blocks: int, generator: np.random.Generator) -> list[Batch]:
    """Batches of `blocks` blocks of four: two scans of class 0, one of class 1, one of class 2 (BRIQA, §2).

    An epoch has as many blocks as class 1 has scans, N₁; class 2 is up-sampled to N₁. Class 0 comes from a ring that
    starts 2·N₁ further on each epoch, so that over the epochs its scans are used equally often, give or take one.
    Raises ConfigError when a class has no scan.
    """
    none, moderate, severe = (np.flatnonzero(labels == severity) for severity in Severity)
    for severity, members in zip(Severity, (none, moderate, severe), strict=True):
        if members.size == 0:
            raise ConfigError(f"No training scan has severity {severity:d}; add some, or use --batching standard.")
    n1 = moderate.size
    ring = (epoch * 2 * n1 + np.arange(2 * n1)) % none.size
    zeros = generator.permutation(none[ring]).reshape(n1, 2)
    ones = generator.permutation(moderate)
    rounds = -(-n1 // severe.size)
    twos = np.concatenate([generator.permutation(severe) for _ in range(rounds)])[:n1]
    fours = np.column_stack([zeros, ones, twos])
    return [fours[start : start + blocks].reshape(-1) for start in range(0, n1, blocks)]


def epochs_of(made: Callable[[int], list[Batch]], epochs: int, steps: int | None) -> list[list[Batch]]:
    """The batches of so many epochs as they are made; with steps, cut into epochs of that many, one after the other.

    Cut, all ways of making batches learn in equally many steps. made: the batches of the epoch with this number.
    """
    if steps is None:
        return [made(epoch) for epoch in range(epochs)]
    if not (first := made(0)):
        return [[]] * epochs
    endless = chain(first, chain.from_iterable(map(made, count(1))))
    return [list(islice(endless, steps)) for _ in range(epochs)]
