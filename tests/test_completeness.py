"""When a series is taken to be complete."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dicom_instances import classic_slice, enhanced, part10, stack
from hypothesis import given
from hypothesis import strategies as st

from qcnode.config import Completeness
from qcnode.intake.completeness import AssociationState, Complete, Waiting, completeness, has_no_gap
from qcnode.intake.facts import Facts, read_facts
from qcnode.ledger.records import Announced

NOON = datetime(2025, 6, 1, 12, 0, 0, tzinfo=UTC)
SETTINGS = Completeness(grace_seconds=2.0, quiet_seconds=30.0)
GRACE, QUIET = timedelta(seconds=2), timedelta(seconds=30)
OPEN, RELEASED, ABORTED, UNKNOWN = AssociationState

STACK = tuple(read_facts(part10(ds)) for ds in stack(12))
OBJECT = read_facts(part10(enhanced(8)))


def at(seconds: float, instances: Sequence[Facts], association: AssociationState = RELEASED) -> Complete | Waiting:
    """The answer so many seconds after the last instance, which came at noon."""
    now = NOON + timedelta(seconds=seconds)
    return completeness(instances, last_received=NOON, association=association, now=now, settings=SETTINGS)


subsets = st.lists(st.sampled_from([*STACK, OBJECT]), min_size=1, max_size=16)
states = st.sampled_from(AssociationState)
seconds = st.floats(-100, 100)


@given(subsets, states, seconds, st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(
    instances: list[Facts], association: AssociationState, now: float, generator: random.Random
) -> None:
    answer = at(now, instances, association)
    again = instances + generator.choices(instances, k=3)
    generator.shuffle(again)
    assert at(now, again, association) == answer


@given(subsets, states, seconds)
def test_nobody_waits_longer_than_the_quiet_time(
    instances: list[Facts], association: AssociationState, now: float
) -> None:
    answer = at(now, instances, association)
    if isinstance(answer, Waiting):
        assert NOON + timedelta(seconds=now) < answer.until <= NOON + timedelta(seconds=now) + QUIET


@given(subsets, states)
def test_after_the_quiet_time_any_series_is_complete(instances: list[Facts], association: AssociationState) -> None:
    assert isinstance(at(30.0, instances, association), Complete)


@given(subsets, states, st.floats(0, 40), st.floats(0, 40))
def test_what_is_complete_stays_so(
    instances: list[Facts], association: AssociationState, now: float, later: float
) -> None:
    if isinstance(at(now, instances, association), Complete):
        assert isinstance(at(now + later, instances, association), Complete)


@given(subsets, states, st.floats(0, 40))
def test_the_promised_time_is_the_time(instances: list[Facts], association: AssociationState, now: float) -> None:
    answer = at(now, instances, association)
    if isinstance(answer, Waiting):
        then = (answer.until - NOON).total_seconds()
        assert isinstance(at(then, instances, association), Complete)


@pytest.mark.parametrize("association", list(AssociationState))
def test_a_multi_frame_object_is_complete_when_it_arrives(association: AssociationState) -> None:
    assert isinstance(at(0.0, [OBJECT], association), Complete)


def test_a_multi_frame_object_short_of_a_frame_waits() -> None:
    short = read_facts(part10(enhanced(8, described=7)))
    assert at(0.0, [short]) == Waiting(NOON + QUIET)


def test_a_concatenation_is_complete_with_its_last_part() -> None:
    def part(number: int) -> Facts:
        uids = {"ConcatenationUID": "1.2.3", "SOPInstanceUID": f"1.2.3.{number}"}
        return read_facts(part10(enhanced(4, InConcatenationNumber=number, InConcatenationTotalNumber=3, **uids)))

    assert at(0.0, [part(3), part(1)], OPEN) == Waiting(NOON + QUIET)
    assert isinstance(at(0.0, [part(3), part(1), part(2)], OPEN), Complete)


def test_a_concatenation_of_unknown_length_waits() -> None:
    part = replace(OBJECT, concatenation_uid="1.2.3", in_concatenation_number=1)
    assert at(0.0, [part]) == Waiting(NOON + QUIET)


def test_a_gap_free_stack_is_complete_shortly_after_its_release() -> None:
    assert at(0.0, STACK, RELEASED) == Waiting(NOON + GRACE)
    assert isinstance(at(2.0, STACK, RELEASED), Complete)


@pytest.mark.parametrize("association", [OPEN, ABORTED, UNKNOWN])
def test_without_a_release_a_stack_waits_for_quiet(association: AssociationState) -> None:
    assert at(2.0, STACK, association) == Waiting(NOON + QUIET)


@pytest.mark.parametrize("missing", [1, 5, 10])
def test_a_missing_slice_is_waited_for(missing: int) -> None:
    assert at(2.0, STACK[:missing] + STACK[missing + 1 :]) == Waiting(NOON + QUIET)


def test_every_other_slice_is_no_stack() -> None:
    assert not has_no_gap(STACK[::2])
    assert has_no_gap([replace(facts, slice_thickness_mm=10.0) for facts in STACK[::2]])
    stated = [replace(facts, slice_thickness_mm=10.0, spacing_between_slices_mm=5.0) for facts in STACK]
    assert has_no_gap(stated)
    assert not has_no_gap(stated[::2])


def test_a_slice_alone_or_a_pair_is_no_stack() -> None:
    assert not has_no_gap(STACK[:1])
    assert not has_no_gap(STACK[:2])
    assert has_no_gap(STACK[:3])


def test_two_echoes_are_a_stack_when_both_are_whole() -> None:
    second = [replace(facts, sop_instance_uid=facts.sop_instance_uid + ".2") for facts in STACK]
    assert has_no_gap([*STACK, *second])
    assert not has_no_gap([*STACK, *second[:-1]])


def test_slices_of_another_orientation_or_size_are_no_stack() -> None:
    assert not has_no_gap([*STACK, replace(STACK[3], orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))])
    assert not has_no_gap([*STACK[:-1], replace(STACK[-1], rows=32)])
    assert not has_no_gap([*STACK[:-1], replace(STACK[-1], position=None)])


@pytest.mark.parametrize("promise", ["images_in_acquisition", "number_of_series_related_instances"])
def test_a_promise_kept_is_the_end_of_the_series(promise: str) -> None:
    promised = [replace(facts, **{promise: 12}) for facts in STACK]
    assert isinstance(at(0.0, promised, OPEN), Complete)
    assert at(2.0, promised[:-1], RELEASED) == Waiting(NOON + QUIET)


def test_a_promise_of_one_image_promises_nothing() -> None:
    assert at(0.0, [replace(facts, images_in_acquisition=1) for facts in STACK], OPEN) == Waiting(NOON + QUIET)


def test_a_promise_kept_with_a_gap_waits() -> None:
    holes = [replace(facts, images_in_acquisition=11) for facts in STACK if facts is not STACK[5]]
    assert at(0.0, holes, OPEN) == Waiting(NOON + QUIET)


def test_a_clock_set_back_by_hours_does_not_hold_a_series_for_hours() -> None:
    assert isinstance(at(-3600.0, STACK), Complete)
    assert isinstance(at(-3600.0, STACK[:2], OPEN), Complete)


def test_what_has_no_geometry_waits_for_quiet() -> None:
    report = read_facts(part10(classic_slice(1, ImagePositionPatient=None)))
    assert at(29.9, [report]) == Waiting(NOON + QUIET)


@pytest.mark.real_data
def test_a_real_series_has_no_gap_until_a_slice_is_taken_out(real_data: Path) -> None:
    paths = sorted((real_data / "dicom" / "siemens_skyra_3yo_T1").rglob("*.dcm"))
    facts = [read_facts(path.read_bytes()) for path in paths]
    assert len(facts) == 192
    assert has_no_gap(facts)
    assert not has_no_gap(facts[:100] + facts[101:])
    assert not has_no_gap(facts[::2])


# The scanner's own word

ALL = frozenset(facts.sop_instance_uid for facts in (*STACK, OBJECT))


def told(seconds: float, instances: Sequence[Facts], word: Announced, association: AssociationState = RELEASED) -> bool:
    """Whether it is complete so many seconds after the last instance, by this word."""
    now = NOON + timedelta(seconds=seconds)
    found = completeness(
        instances, last_received=NOON, association=association, now=now, settings=SETTINGS, announced=word
    )
    if isinstance(found, Waiting):
        assert now < found.until <= now + QUIET, "nobody waits longer than the quiet time"
    return isinstance(found, Complete)


@given(subsets, st.frozensets(st.sampled_from(sorted(ALL))), states, seconds, st.floats(-100, 100))
def test_what_was_announced_and_came_is_complete_at_once_and_else_waited_for(
    instances: list[Facts], names: frozenset[str], association: AssociationState, now: float, said: float
) -> None:
    here = {facts.sop_instance_uid for facts in instances}
    word = Announced(names, NOON + timedelta(seconds=min(said, now)))
    complete = told(now, instances, word, association)
    if not names & here:
        assert complete == isinstance(at(now, instances, association), Complete), "a word on others is no word on these"
    elif names <= here:
        assert complete
    elif -30 <= now < 30:
        assert not complete, "geometry has no say where the scanner has"


@given(subsets, st.frozensets(st.sampled_from(sorted(ALL))), states, st.floats(0, 60))
def test_nobody_waits_for_what_never_comes(
    instances: list[Facts], names: frozenset[str], association: AssociationState, said: float
) -> None:
    word = Announced(names, NOON + timedelta(seconds=said))
    assert told(said + 30.0, instances, word, association)


def test_a_stack_short_at_its_ends_is_told_from_a_whole_one_by_the_scanner_alone() -> None:
    short = STACK[1:-1]
    assert isinstance(at(2.0, short), Complete), "its geometry shows no gap"
    word = Announced(frozenset(facts.sop_instance_uid for facts in STACK), NOON)
    assert not told(29.9, short, word)
    assert told(0.0, STACK, word), "and the whole one waits for nothing"


def test_a_word_that_comes_late_is_waited_for_from_then() -> None:
    word = Announced(ALL, NOON + timedelta(seconds=100))
    assert not told(129.9, STACK, word)
    assert told(130.0, STACK, word)
    assert told(99.0, STACK, word), "unless the clock was set back since"


def test_it_says_how_many_are_missing() -> None:
    word = Announced(frozenset(facts.sop_instance_uid for facts in STACK), NOON)
    found = completeness(
        STACK[:10], last_received=NOON, association=OPEN, now=NOON + QUIET, settings=SETTINGS, announced=word
    )
    assert found == Complete("2 of 12 that the scanner announced did not come within the quiet time")
