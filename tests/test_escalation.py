"""A verdict that nobody answers calls somebody else, once; one that is answered does not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from delivery_peers import webhook
from page_cases import NOW, claimed, received
from reporting_cases import ASSESSMENTS

from qcnode.artifacts import Artifact, Severity
from qcnode.config import Alert, Settings, StateFolder
from qcnode.delivery import outbox
from qcnode.escalation import escalate_once
from qcnode.ledger.store import Store
from qcnode.steps import finish
from qcnode.verdict import Assessment, Decision
from qcnode.worker import Outcome

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
MINUTE = timedelta(minutes=1)


def site(url: str = "json://127.0.0.1:9/x") -> Settings:
    return Settings(
        alerts=(
            Alert(url=url, name="room"),
            Alert(url=url, name="charge", after_minutes=10),
            Alert(url=url, name="physicist", after_minutes=30, on=(Decision.RESCAN, Decision.NOT_ASSESSABLE)),
        )
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


def assessed(store: Store, folder: Path, assessment: Assessment, uid: str = "1.2.3", revision: int = 1) -> None:
    if revision == 1:
        received(store, uid)
    assert finish(store, folder, claimed(store, uid, revision), Outcome(assessment, ()), site(), NOW)


def due(store: Store) -> list[tuple[str, str]]:
    later = NOW + timedelta(days=1)
    found = [(name, one) for name in ("room", "charge", "physicist") for one in store.deliveries.due(name, later)]
    return [(name, str(one.title)) for name, one in found]


def test_who_is_told_at_once_and_who_only_later(store: Store, tmp_path: Path) -> None:
    assessed(store, tmp_path, ASSESSMENTS["rescan"])
    assert due(store) == [("room", "Repeat this scan (axial)")]
    assert [escalate_once(store, tmp_path, site(), NOW + n * MINUTE) for n in (0, 9, 10, 11, 29, 30, 31, 999)] == [
        *(0, 0, 1, 0),
        *(0, 1, 0, 0),
    ]
    assert due(store)[1:] == [
        ("charge", "No answer for 10 min: Repeat this scan (axial)"),
        ("physicist", "No answer for 30 min: Repeat this scan (axial)"),
    ]
    kinds = [event.kind for event in store.overview.events(2)]
    assert kinds == ["escalated", "escalated"]


def test_any_answer_of_anybody_ends_it(store: Store, tmp_path: Path) -> None:
    for number, say in enumerate(
        (
            lambda uid: store.opinions.acknowledge(uid, 1, "mira", NOW),
            lambda uid: store.opinions.agree(uid, 1, "mira", NOW),
            lambda uid: store.opinions.correct(uid, 1, {Artifact.NOISE: Severity.NONE}, "mira", NOW),
        )
    ):
        uid = f"1.2.{number}"
        assessed(store, tmp_path, ASSESSMENTS["rescan"], uid)
        assert say(uid) == 1
    assessed(store, tmp_path, ASSESSMENTS["accept"], "1.2.8")
    assert escalate_once(store, tmp_path, site(), NOW + 60 * MINUTE) == 0


def test_an_answer_that_comes_just_before_the_alert_counts(store: Store, tmp_path: Path) -> None:
    assessed(store, tmp_path, ASSESSMENTS["rescan"])
    (one,) = store.escalations.due({"charge": 10 * MINUTE}, NOW + 10 * MINUTE)
    store.opinions.acknowledge("1.2.3", 1, "mira", NOW)
    assert not store.escalations.escalate(one, "t", "b", NOW + 10 * MINUTE)
    assert len(due(store)) == 1


def test_a_verdict_that_another_one_supersedes_calls_nobody(store: Store, tmp_path: Path) -> None:
    assessed(store, tmp_path, ASSESSMENTS["rescan"])
    received(store, number=2)
    assert escalate_once(store, tmp_path, site(), NOW + 60 * MINUTE) == 0
    assessed(store, tmp_path, ASSESSMENTS["accept"], revision=2)
    assert escalate_once(store, tmp_path, site(), NOW + 60 * MINUTE) == 0


def test_an_address_that_the_configuration_names_no_more_is_not_told(store: Store, tmp_path: Path) -> None:
    assessed(store, tmp_path, ASSESSMENTS["rescan"])
    assert escalate_once(store, tmp_path, Settings(), NOW + 60 * MINUTE) == 0
    assert escalate_once(store, tmp_path, site(), NOW + 60 * MINUTE) == 0


@pytest.mark.parametrize("hours", [5, -5])
def test_a_clock_that_is_moved_makes_it_neither_early_nor_late(store: Store, tmp_path: Path, hours: int) -> None:
    assessed(store, tmp_path, ASSESSMENTS["rescan"])
    by = timedelta(hours=hours)
    store.escalations.clock_moved(by, NOW + 4 * MINUTE + by)
    told = [escalate_once(store, tmp_path, site(), NOW + n * MINUTE + by) for n in (4, 9, 10)]
    assert told == [0, 0, 1]


def test_a_clock_that_was_set_back_while_the_node_stood_still_begins_anew(store: Store, tmp_path: Path) -> None:
    assessed(store, tmp_path, ASSESSMENTS["rescan"])
    back = NOW - timedelta(days=3)
    assert [escalate_once(store, tmp_path, site(), back + n * MINUTE) for n in (0, 9, 10)] == [0, 0, 1]


def test_it_goes_out_like_any_alert(store: Store, tmp_path: Path) -> None:
    assessed(store, tmp_path, ASSESSMENTS["not_assessable"])
    assert escalate_once(store, tmp_path, site(), NOW + 30 * MINUTE) == 1
    with webhook() as (url, came):
        send = outbox.senders(site(url), tmp_path)["physicist"]
        assert outbox.deliver_once(store, "physicist", send, NOW + 30 * MINUTE, random.Random(1)) == 1
    assert [one["title"] for one in came] == ["No answer for 30 min: Scan not assessable"]
    assert "Slice 17 of 36" in str(came[0]["message"])
