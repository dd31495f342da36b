"""The ledger of performed procedure steps: what they say counts once they have ended, and outlives the node."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcnode.config import StateFolder
from qcnode.ledger.performed import Change
from qcnode.ledger.records import Announced, Received, StepReport
from qcnode.ledger.store import Store
from qcnode.states import State, StepState
from qcnode.verdict import Assessment, not_assessable

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
STEP, SERIES = "1.9", "1.2.3"
WHOLE = tuple(f"{SERIES}.{number}" for number in range(1, 5))

uids = st.frozensets(st.sampled_from(WHOLE))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


def receive(store: Store, *sops: str, at: datetime = NOW) -> None:
    values = ("1.2.840", "1.2.1", "a" * 64, 9, at, "SWOOP1", {})
    store.record_instances([Received(SERIES, "1.2", sop, *values) for sop in sops])  # type: ignore[arg-type]


def ended(step: str = STEP, *sops: str, state: StepState = StepState.COMPLETED) -> StepReport:
    return StepReport(step, state, {SERIES: sops})


def perform(store: Store, *sops: str, step: str = STEP, state: StepState = StepState.COMPLETED) -> None:
    assert store.performed.create(StepReport(step, StepState.IN_PROGRESS, {}), NOW)
    assert store.performed.change(ended(step, *sops, state=state), LATER) is Change.DONE


def announced(store: Store) -> Announced | None:
    return store.performed.announced([SERIES]).get(SERIES)


def state_of(store: Store) -> tuple[State, int]:
    series = store.overview.detail(SERIES)
    assert series is not None
    return series.state, series.revision


def assess(store: Store, revision: int = 1) -> None:
    assert store.mark_ready(SERIES, revision, "quiet", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    assert store.finish(claim, Assessment(not_assessable("No.")), [], [], NOW)


@given(uids, uids)
def test_what_is_missing_was_announced_and_is_not_here(said: frozenset[str], here: frozenset[str]) -> None:
    missing = Announced(said, NOW).missing(here)
    assert missing <= said
    assert not missing & here
    if said & here:
        assert missing == said - here
    else:
        assert not missing, "a word on other objects is none on these"


@pytest.mark.parametrize("state", [StepState.COMPLETED, StepState.DISCONTINUED])
def test_a_step_counts_once_it_has_ended_and_outlives_the_node(tmp_path: Path, state: StepState) -> None:
    folder = StateFolder(folder=tmp_path)
    with Store.open(folder) as store:
        assert store.performed.create(StepReport(STEP, StepState.IN_PROGRESS, {SERIES: WHOLE}), NOW)
        assert announced(store) is None
        assert store.performed.change(StepReport(STEP, StepState.IN_PROGRESS, {SERIES: WHOLE[:2]}), NOW) is Change.DONE
        assert announced(store) is None
    with Store.open(folder) as store:
        assert store.performed.change(StepReport(STEP, state, None), LATER) is Change.DONE
    with Store.open(folder) as store:
        assert announced(store) == Announced(frozenset(WHOLE[:2]), LATER), "the series of the last that named any"


def test_a_step_is_created_once_changed_while_it_lasts_and_never_after(store: Store) -> None:
    assert store.performed.change(ended(), NOW) is Change.UNKNOWN
    perform(store, *WHOLE)
    assert not store.performed.create(StepReport(STEP, StepState.IN_PROGRESS, {}), LATER)
    assert store.performed.change(ended(STEP, "1.1"), LATER) is Change.TOO_LATE
    found = announced(store)
    assert found is not None
    assert found.sop_instance_uids == set(WHOLE)


def test_two_steps_of_one_series_count_together(store: Store) -> None:
    perform(store, *WHOLE[:2])
    perform(store, *WHOLE[1:], step="1.9.1", state=StepState.DISCONTINUED)
    found = announced(store)
    assert found is not None
    assert found.sop_instance_uids == set(WHOLE)


def test_a_series_without_references_is_not_spoken_of(store: Store) -> None:
    perform(store)
    assert announced(store) is None
    assert store.performed.announced([]) == {}


def test_a_series_that_was_taken_for_complete_is_waited_for_again(store: Store) -> None:
    receive(store, *WHOLE[:3])
    assess(store)
    perform(store, *WHOLE)
    assert state_of(store) == (State.RECEIVING, 2), "a new revision, since this one has its verdict"
    series = store.overview.detail(SERIES)
    assert series is not None
    events = {event.kind: event.detail for event in series.events}
    assert events["announced"] == {"step": STEP, "instances": 4, "missing": 1}
    assert events["receiving"]["why"] == "the scanner announced more"


def test_one_that_nobody_claimed_yet_keeps_its_revision(store: Store) -> None:
    receive(store, *WHOLE[:3])
    assert store.mark_ready(SERIES, 1, "quiet", NOW)
    perform(store, *WHOLE)
    assert state_of(store) == (State.RECEIVING, 1)


def test_a_claim_is_void_when_the_scanner_announces_more(store: Store) -> None:
    receive(store, *WHOLE[:3])
    assert store.mark_ready(SERIES, 1, "quiet", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    perform(store, *WHOLE)
    assert not store.finish(claim, Assessment(not_assessable("No.")), [], [], NOW)


@pytest.mark.parametrize("sops", [WHOLE[:3], WHOLE[1:2], ("1.7.1", "1.7.2")], ids=["the-same", "fewer", "others"])
def test_a_verdict_stands_where_nothing_of_it_is_missing(store: Store, sops: tuple[str, ...]) -> None:
    receive(store, *WHOLE[:3])
    assess(store)
    perform(store, *sops)
    assert state_of(store) == (State.ASSESSED, 1)


def test_a_series_whose_images_are_gone_or_excluded_is_left_alone(store: Store) -> None:
    receive(store, *WHOLE[:3])
    assess(store)
    assert store.mark_removed(SERIES, WHOLE[:3], NOW)
    perform(store, *WHOLE)
    assert state_of(store) == (State.ASSESSED, 1)


def test_an_excluded_series_stays_excluded(store: Store) -> None:
    receive(store, *WHOLE[:3])
    assert store.mark_ready(SERIES, 1, "quiet", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    assert store.finish(claim, Assessment(not_assessable("No."), excluded="a localizer"), [], [], NOW)
    perform(store, *WHOLE)
    assert state_of(store) == (State.EXCLUDED, 1)
