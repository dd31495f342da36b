"""Alerts to one address: at most so many in so many minutes, the rest together, and none lost."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from delivery_peers import webhook
from hypothesis import given, settings
from hypothesis import strategies as st

from qcnode.config import Alert, Settings, StateFolder
from qcnode.delivery import notify, outbox
from qcnode.delivery.crowding import AlertSender, summary
from qcnode.delivery.outcome import ACCEPTED, Answer
from qcnode.errors import TransientError
from qcnode.ledger.records import DueDelivery, NewDocument, Received
from qcnode.ledger.store import Store
from qcnode.states import DeliveryState
from qcnode.verdict import Assessment, Decision, Verdict

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def due(number: int) -> DueDelivery:
    return DueDelivery(number, "phone", 0, 0, f"1.2.{number}", "alert", None, None, f"title {number}", f"body {number}")


class Address:
    """Somebody's phone, and a clock that only counts on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: object) -> None:
        self.messages: list[tuple[float, str]] = []
        self.seconds = 0.0
        self.down = False
        monkeypatch.setattr(notify, "notify", self._notify)
        self.sender = AlertSender(Alert(url="json://x", **settings), lambda: lambda: False, lambda: self.seconds)

    def _notify(self, url: str, title: str, body: str) -> None:
        if self.down:
            raise TransientError("Nobody there.")
        self.messages.append((self.seconds, f"{title}\n{body}"))

    def send(self, alerts: Sequence[DueDelivery]) -> list[Answer]:
        return [outcome.answer for outcome in self.sender(alerts)]


@settings(deadline=None)
@given(
    arrivals=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 7)), max_size=12),
    at_most=st.integers(1, 4),
    minutes=st.integers(1, 5),
)
def test_no_window_has_more_and_each_alert_is_in_one_message(
    arrivals: list[tuple[int, int]], at_most: int, minutes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        phone = Address(patch, at_most=at_most, per_minutes=minutes)
        waiting: list[DueDelivery] = []
        number = 0
        for wait, count in [*arrivals, *[(60 * minutes + 1, 0)] * 3]:
            phone.seconds += wait
            waiting += [due(number := number + 1) for _ in range(count)]
            answers = phone.send(waiting) if waiting else []
            waiting = [one for one, answer in zip(waiting, answers, strict=True) if answer is not Answer.ACCEPTED]
        assert waiting == []
        for moment, _ in phone.messages:
            assert sum(moment <= other < moment + 60 * minutes for other, _ in phone.messages) <= at_most
        text = "\n".join(message for _, message in phone.messages).split("\n")
        for wanted in range(1, number + 1):
            said = [line for line in text if line in (f"body {wanted}", f"title {wanted}: body {wanted}")]
            assert len(said) == 1, wanted


def test_what_did_not_go_out_does_not_count_and_a_summary_that_fails_leaves_all_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phone = Address(monkeypatch, at_most=2)
    phone.down = True
    assert phone.send([due(n) for n in range(5)]) == [Answer.UNREACHABLE] * 5
    phone.down = False
    assert phone.send([due(n) for n in range(5)]) == [Answer.ACCEPTED] * 5
    assert [message.split("\n")[0] for _, message in phone.messages] == ["title 0", "4 alerts in one"]
    assert phone.send([due(9)]) == [Answer.UNTRIED]


def test_a_summary_has_a_line_for_each_and_none_is_endless() -> None:
    title, body = summary([due(1), due(2), DueDelivery(3, "p", 0, 0, "1.2.3", "alert", None, None, "t", "x" * 999)])
    assert title == "3 alerts in one"
    assert [len(line) <= 200 for line in body.splitlines()] == [True] * 3
    assert summary([due(1)]) == ("title 1", "body 1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


def test_through_the_outbox_a_burst_is_few_messages(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "TURN_SECONDS", 60.0)  # a slow machine would need several
    chance = random.Random(1)
    for number in range(6):
        uid = f"1.2.{number}"
        store.record_instances([Received(uid, "1.2", f"{uid}.1", "1.2.4", "1.2.1", "a" * 64, 1, NOW, "SWOOP", {})])
        store.mark_ready(uid, 1, "quiet", NOW)
        claim = store.claim(NOW)
        assert claim is not None
        alert = NewDocument("alert", title="Repeat this scan", body=f"Series …{number}")
        assessment = Assessment(Verdict(Decision.RESCAN, ("Severe motion.",)), uid)
        assert store.finish(claim, assessment, [alert], [("alert", "alert-1")], NOW)
    with webhook() as (url, came):
        settings = Settings(alerts=(Alert(url=url, at_most=3, per_minutes=0.05),))
        send = outbox.senders(settings, tmp_path)["alert-1"]
        assert outbox.deliver_once(store, "alert-1", send, NOW, chance) == 6
        assert [one["title"] for one in came] == ["Repeat this scan"] * 2 + ["4 alerts in one"]
        assert str(came[2]["message"]).count("\n") == 3
    assert store.deliveries.counts()[DeliveryState.SENT] == 6


def test_a_turn_in_which_nothing_may_go_out_is_not_repeated_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node repeats a turn while one finds something to do: it must not spin until the address may get more."""
    store.record_instances([Received("1.2.3", "1.2", "1.2.3.1", "1.2.4", "1.2.1", "a" * 64, 1, NOW, "SWOOP", {})])
    store.mark_ready("1.2.3", 1, "quiet", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    assessment = Assessment(Verdict(Decision.RESCAN, ("Severe motion.",)), "1.2.3")
    assert store.finish(claim, assessment, [NewDocument("alert", title="t", body="b")], [("alert", "phone")], NOW)
    phone = Address(monkeypatch, at_most=1)
    assert phone.sender([due(1)])[0] is ACCEPTED
    chance = random.Random(1)
    assert outbox.deliver_once(store, "phone", phone.sender, NOW, chance) == 0
    (still,) = store.deliveries.due("phone", NOW)
    assert still.attempts == 0
    phone.seconds += 601
    assert outbox.deliver_once(store, "phone", phone.sender, NOW + timedelta(minutes=10), chance) == 1
