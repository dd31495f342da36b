"""Laws of the split: nobody is in two parts, and nobody changes part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from train.split import SHARES, TEST, TRAIN, VALIDATION, split_subjects, subjects_of

kinds = st.dictionaries(
    st.text("ABC0123456789", min_size=1, max_size=6), st.sampled_from(["adult", "child"]), max_size=60
)


@given(kinds, st.integers(0, 5))
def test_everybody_has_one_part_and_rows_may_come_in_any_order(who: dict[str, str], seed: int) -> None:
    part_of = split_subjects(who, seed)
    assert part_of.keys() == who.keys()
    assert split_subjects(dict(reversed(who.items())), seed) == part_of
    assert sum(len(subjects_of(part_of, part)) for part in SHARES) == len(who)


@given(kinds, kinds)
def test_nobody_changes_part_when_the_corpus_grows(who: dict[str, str], more: dict[str, str]) -> None:
    first = split_subjects(who, 1)
    second = split_subjects(more | who, 1, first)
    assert {subject: second[subject] for subject in who} == first


def test_the_parts_have_their_shares_within_each_kind() -> None:
    who = {f"LISA_{n:04d}": "adult" if n < 100 else "child" for n in range(200)}
    part_of = split_subjects(who, 3)
    for kind in ("adult", "child"):
        sizes = {part: sum(part_of[s] == part for s in who if who[s] == kind) for part in SHARES}
        assert all(abs(sizes[part] - 100 * SHARES[part]) <= 2 for part in (TRAIN, VALIDATION, TEST))


def test_five_subjects_fill_all_three_parts() -> None:
    assert set(split_subjects(dict.fromkeys("ABCDE", ""), 0).values()) == {TRAIN, VALIDATION, TEST}


def test_another_seed_is_another_split() -> None:
    who = dict.fromkeys((f"S_{n}" for n in range(50)), "")
    assert split_subjects(who, 1) != split_subjects(who, 2)
