"""The batches: of a few scans by hand, then their laws: who is in them, and how often over the epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcnode.errors import ConfigError
from train.batching import epochs_of, rotating_batches, standard_batches

counts = st.integers(1, 30)


def shuffled_labels(none: int, moderate: int, severe: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [none, moderate, severe]))


class InOrder(np.random.Generator):
    """Shuffles nothing, so that batches can be written out."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def permutation(self, x: Any, axis: int = 0) -> Any:  # type: ignore[override]
        return np.arange(x) if isinstance(x, int) else x


def test_rotating_batches_of_eight_scans_by_hand() -> None:
    """BRIQA, §2: class 0 is scans 1, 2, 4, 6, 7, of which an epoch takes the next four in a ring; class 1 is 0, 5."""
    labels = np.array([1, 0, 0, 2, 0, 1, 0, 0])
    epochs = [[batch.tolist() for batch in rotating_batches(labels, epoch, 1, InOrder())] for epoch in range(5)]
    assert epochs == [
        [[1, 2, 0, 3], [4, 6, 5, 3]],  # 2 of class 0, 1 of class 1, 1 of class 2; its only scan twice
        [[7, 1, 0, 3], [2, 4, 5, 3]],
        [[6, 7, 0, 3], [1, 2, 5, 3]],
        [[4, 6, 0, 3], [7, 1, 5, 3]],
        [[2, 4, 0, 3], [6, 7, 5, 3]],  # each of class 0 four times by now; then as in the first
    ]
    assert [batch.tolist() for batch in rotating_batches(labels, 5, 2, InOrder())] == [[1, 2, 0, 3, 4, 6, 5, 3]]


def test_standard_batches_of_seven_scans_by_hand() -> None:
    assert [batch.tolist() for batch in standard_batches(7, 4, InOrder())] == [[0, 1, 2, 3], [4, 5, 6]]
    assert [batch.tolist() for batch in standard_batches(7, 3, InOrder())] == [[0, 1, 2], [3, 4, 5]]  # 6 would be alone


@given(counts, counts, counts, st.integers(1, 3), st.integers(0, 9))
def test_a_rotating_block_holds_two_one_one_and_an_epoch_every_moderate_scan_once(
    none: int, moderate: int, severe: int, blocks: int, epoch: int
) -> None:
    labels = shuffled_labels(none, moderate, severe)
    batches = rotating_batches(labels, epoch, blocks, np.random.default_rng(epoch))
    drawn = np.concatenate(batches)
    np.testing.assert_array_equal(labels[drawn].reshape(-1, 4), np.tile([0, 0, 1, 2], (moderate, 1)))
    assert all(len(batch) == 4 * blocks for batch in batches[:-1])
    np.testing.assert_array_equal(np.sort(drawn[labels[drawn] == 1]), np.flatnonzero(labels == 1))


@given(counts, counts, counts, st.integers(1, 12))
def test_class_0_is_used_evenly_over_the_epochs(none: int, moderate: int, severe: int, epochs: int) -> None:
    labels = shuffled_labels(none, moderate, severe)
    batches = [b for e in range(epochs) for b in rotating_batches(labels, e, 2, np.random.default_rng(e))]
    used = np.bincount(np.concatenate(batches), minlength=len(labels))[labels == 0]
    assert used.max() - used.min() <= 1
    assert used.sum() == 2 * moderate * epochs


@given(counts, counts, counts)
def test_class_2_is_up_sampled_evenly(none: int, moderate: int, severe: int) -> None:
    labels = shuffled_labels(none, moderate, severe)
    used = np.bincount(np.concatenate(rotating_batches(labels, 0, 1, np.random.default_rng(0))), minlength=len(labels))
    assert np.ptp(used[labels == 2]) <= 1
    assert used[labels == 2].sum() == moderate


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_class_without_a_scan_is_named(absent: int) -> None:
    labels = np.array([c for c in (0, 1, 2) if c != absent] * 3)
    with pytest.raises(ConfigError, match=f"severity {absent}"):
        rotating_batches(labels, 0, 1, np.random.default_rng(0))


@given(st.integers(2, 50), st.integers(2, 9))
def test_standard_batches_hold_every_scan_once(count: int, size: int) -> None:
    drawn = np.concatenate(standard_batches(count, size, np.random.default_rng(0)))
    assert len(set(drawn)) == len(drawn) >= count - 1
    assert len(drawn) == count or count % size == 1


@given(st.integers(1, 5), st.integers(1, 7), st.integers(2, 30))
def test_epochs_of_so_many_steps_leave_no_batch_out_and_go_on_where_the_last_ended(
    epochs: int, steps: int, scans: int
) -> None:
    def made(epoch: int) -> list[np.ndarray]:
        return [np.array([epoch, place]) for place in range(scans // 2)]

    cut = epochs_of(made, epochs, steps)
    assert [len(batches) for batches in cut] == [steps] * epochs
    in_order = [batch.tolist() for batches in cut for batch in batches]
    assert in_order == [[n // (scans // 2), n % (scans // 2)] for n in range(epochs * steps)]
    whole = epochs_of(made, epochs, None)
    assert [len(batches) for batches in whole] == [scans // 2] * epochs


def test_epochs_of_nothing_are_empty() -> None:
    assert epochs_of(lambda _: [], 3, 5) == [[], [], []]
