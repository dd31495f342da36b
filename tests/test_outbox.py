"""The outbox's laws: a destination that is down blocks nothing else, and gets everything, once, when it is back."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from delivery_peers import document, free_port, needs_dcmtk, storescp, webhook
from hypothesis import given
from hypothesis import strategies as st

from qcnode.config import Alert, Destination, Settings, StateFolder
from qcnode.delivery import outbox
from qcnode.delivery.outcome import ACCEPTED, UNTRIED, Answer, Outcome
from qcnode.errors import TransientError
from qcnode.ledger.records import DueDelivery, NewDocument, Received
from qcnode.ledger.store import Store
from qcnode.states import DeliveryState
from qcnode.verdict import Assessment, Decision, Verdict

NOW = datetime(2025, 3, 1, 9, 0, tzinfo=UTC)
DOWN = Outcome(Answer.UNREACHABLE, "Nobody there.")
BROKEN = Outcome(Answer.BROKEN, "The peer ended the association.")
REFUSED = Outcome(Answer.REFUSED, "Refused (0xC000).")
# Apprise imports a module on its way that Python 3.11 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
KINDS = ("report", "flag", "capture")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


@pytest.fixture
def chance() -> random.Random:
    return random.Random(7)


def destination(name: str, **more: object) -> Destination:
    return Destination(name=name, ae_title="ARCHIVE", host="127.0.0.1", port=11113, **more)


def assessed(store: Store, number: int, rows: Sequence[tuple[str, str]], alert: bool = False) -> str:
    """An assessed series with one report, due at `rows`; its series UID."""
    uid = f"1.2.{number}"
    class_uid = "1.2.840.10008.5.1.4.1.1.88.34"
    store.record_instances([Received(uid, "1.2", f"{uid}.1", class_uid, "1.2.1", "a" * 64, 1, NOW, "SWOOP", {})])
    store.mark_ready(uid, 1, "quiet", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    sop = f"2.25.{1000 + number}"
    documents = [NewDocument("report", class_uid, sop, f"documents/{sop}.dcm")]
    if alert:
        documents.append(NewDocument("alert", title="Repeat this scan", body="Severe motion."))
    assessment = Assessment(Verdict(Decision.RESCAN, ("Severe motion.",)), uid)
    assert store.finish(claim, assessment, documents, rows, NOW)
    return uid


class Peer:
    """A destination that answers by the document's series, and keeps what it accepted."""

    def __init__(self, **answers: Outcome) -> None:
        self.answers = answers
        self.default = ACCEPTED
        self.got: list[str] = []
        self.asked = 0

    def __call__(self, due: Sequence[DueDelivery]) -> list[Outcome]:
        outcomes = [self.answers.get(f"s{d.series_uid.rsplit('.')[-1]}", self.default) for d in due]
        self.got += [d.series_uid for d, o in zip(due, outcomes, strict=True) if o is ACCEPTED]
        self.asked += len(due)
        return outcomes


# Which deliveries arise


def test_each_destination_gets_what_it_asks_for() -> None:
    pacs, console = destination("pacs"), destination("console", send=("capture",), from_ae=("SWOOP",))
    rescan = {"phone": Alert(url="json://x"), "log": Alert(url="json://y", on=tuple(Decision))}
    assert outbox.deliveries(Decision.RESCAN, KINDS, "SWOOP", (pacs, console), rescan) == [
        ("report", "pacs"),
        ("flag", "pacs"),
        ("capture", "pacs"),
        ("capture", "console"),
        ("alert", "phone"),
        ("alert", "log"),
    ]
    assert outbox.deliveries(Decision.ACCEPT, ("report", "capture"), "OTHER", (pacs, console), rescan) == [
        ("report", "pacs"),
        ("capture", "pacs"),
        ("alert", "log"),
    ]


def test_nothing_is_delivered_twice_to_one_destination() -> None:
    twice = destination("pacs", send=("report", "report"))
    assert outbox.deliveries(Decision.ACCEPT, KINDS, "SWOOP", (twice,), {}) == [("report", "pacs")]


# Pauses


@given(attempt=st.integers(1, 2000), seed=st.integers())
def test_a_pause_grows_up_to_its_cap(attempt: int, seed: int) -> None:
    wait = outbox.pause(attempt, random.Random(seed))
    full = min(outbox.FIRST_PAUSE * 2 ** min(attempt - 1, 20), outbox.LONGEST_PAUSE)
    assert 0.8 * full <= wait <= full


def test_a_long_weekend_kills_nothing(chance: random.Random) -> None:
    waited = sum((outbox.pause(n, chance) for n in range(1, outbox.MAX_UNREACHABLE)), timedelta())
    assert timedelta(days=4) < waited < timedelta(days=8)


# Turns


def test_a_turn_without_work_asks_nobody(store: Store, chance: random.Random) -> None:
    peer = Peer()
    assert outbox.deliver_once(store, "pacs", peer, NOW, chance) == 0
    assert peer.asked == 0


def test_a_destination_that_is_down_blocks_no_other_and_gets_everything_once(
    store: Store, chance: random.Random
) -> None:
    pacs, console = Peer(), Peer()
    pacs.default = DOWN
    series = [assessed(store, n, [("report", "pacs"), ("report", "console")]) for n in range(4)]
    now = NOW
    for _ in range(30):
        outbox.deliver_once(store, "pacs", pacs, now, chance)
        outbox.deliver_once(store, "console", console, now, chance)
        now += timedelta(minutes=10)
    assert console.got == series
    assert pacs.got == []
    pacs.default = ACCEPTED
    now += outbox.LONGEST_PAUSE
    for _ in range(3):
        outbox.deliver_once(store, "pacs", pacs, now, chance)
    assert sorted(pacs.got) == series
    assert store.deliveries.counts()[DeliveryState.SENT] == 8


def test_the_first_success_brings_the_waiting_forward(store: Store, chance: random.Random) -> None:
    peer = Peer()
    peer.default = DOWN
    now, old = NOW, assessed(store, 1, [("report", "pacs")])
    for _ in range(12):
        outbox.deliver_once(store, "pacs", peer, now, chance)
        now = store.deliveries.next_due() or now
    outbox.deliver_once(store, "pacs", peer, now, chance)
    peer.default = ACCEPTED
    new = assessed(store, 2, [("report", "pacs")])
    assert outbox.deliver_once(store, "pacs", peer, now, chance) == 1  # only the new one is due
    assert outbox.deliver_once(store, "pacs", peer, now, chance) == 1  # and now the old one is, without its pause
    assert peer.got == [new, old]


def test_a_refused_document_dies_after_a_few_tries_and_a_retry_revives_it(store: Store, chance: random.Random) -> None:
    peer = Peer(s1=REFUSED)
    uid, now = assessed(store, 1, [("report", "pacs")]), NOW
    while (due := store.deliveries.next_due()) is not None:
        now = due
        outbox.deliver_once(store, "pacs", peer, now, chance)
    assert peer.asked == outbox.MAX_REFUSALS
    assert store.deliveries.counts()[DeliveryState.DEAD] == 1
    series = store.overview.detail(uid)
    assert series is not None
    assert series.latest is not None
    assert series.latest.documents[0].deliveries[0].error == REFUSED.error
    assert series.events[-1].kind == "undeliverable"
    assert outbox.deliver_once(store, "pacs", peer, now + timedelta(days=1), chance) == 0
    assert store.retry(uid, now)
    peer.answers.clear()
    outbox.deliver_once(store, "pacs", peer, now, chance)
    assert peer.got == [uid]


def test_being_down_for_long_does_not_use_up_the_tries_of_a_refusal(store: Store, chance: random.Random) -> None:
    peer = Peer(s1=DOWN)
    assessed(store, 1, [("report", "pacs")])
    for outcome, tries in ((DOWN, 3 * outbox.MAX_REFUSALS), (REFUSED, outbox.MAX_REFUSALS - 1)):
        peer.answers["s1"] = outcome
        for _ in range(tries):
            outbox.deliver_once(store, "pacs", peer, store.deliveries.next_due() or NOW, chance)
    assert store.deliveries.counts()[DeliveryState.PENDING] == 1


def test_a_destination_that_never_comes_back_ends_dead(
    store: Store, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_UNREACHABLE", 20)  # and not a week's worth
    peer = Peer()
    peer.default = DOWN
    assessed(store, 1, [("report", "pacs")])
    while (due := store.deliveries.next_due()) is not None:
        outbox.deliver_once(store, "pacs", peer, due, chance)
    assert peer.asked == 20
    assert store.deliveries.counts()[DeliveryState.DEAD] == 1


def test_a_document_that_breaks_the_association_steps_aside(store: Store, chance: random.Random) -> None:
    """The one on its way is put off, and keeps its pause; those behind it keep their turn, and go in the next."""
    poison, healthy = assessed(store, 1, [("report", "pacs")]), assessed(store, 2, [("report", "pacs")])
    assert outbox.deliver_once(store, "pacs", lambda due: [BROKEN, UNTRIED], NOW, chance) == 2
    peer = Peer()
    assert [d.series_uid for d in store.deliveries.due("pacs", NOW)] == [healthy]
    outbox.deliver_once(store, "pacs", peer, NOW, chance)
    assert peer.got == [healthy]
    assert outbox.deliver_once(store, "pacs", peer, NOW, chance) == 0
    outbox.deliver_once(store, "pacs", peer, store.deliveries.next_due() or NOW, chance)
    assert peer.got == [healthy, poison]


def test_breaking_associations_is_no_refusal(store: Store, chance: random.Random) -> None:
    assessed(store, 1, [("report", "pacs")])
    for _ in range(2 * outbox.MAX_REFUSALS):
        outbox.deliver_once(store, "pacs", lambda due: [BROKEN], store.deliveries.next_due() or NOW, chance)
    assert store.deliveries.counts()[DeliveryState.PENDING] == 1


def test_a_destination_that_is_down_is_asked_once_for_all_that_waits(
    store: Store, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each document: many that wait would keep a dead address busy."""
    monkeypatch.setattr(outbox, "BATCH", 3)
    many = [assessed(store, n, [("report", "pacs")]) for n in range(10)]
    peer, now, turns = Peer(), NOW, 0
    peer.default = DOWN
    while now < NOW + timedelta(hours=1):
        turns += outbox.deliver_once(store, "pacs", peer, now, chance) > 0
        now = max(now, store.deliveries.next_due() or now)
    assert turns < 16
    peer.default = ACCEPTED
    while outbox.deliver_once(store, "pacs", peer, now, chance):
        pass
    assert sorted(peer.got) == sorted(many)


def test_what_was_accepted_is_not_sent_again_when_the_ledger_is_held_for_a_while(
    store: Store, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, peer = assessed(store, 1, [("report", "pacs")]), Peer()
    settle, held = store.deliveries.settle, iter([True, True, False])

    def sometimes(*arguments: object) -> None:
        if next(held):
            raise TransientError("The ledger is locked.")
        settle(*arguments)

    monkeypatch.setattr(store.deliveries, "settle", sometimes)
    outbox.deliver_once(store, "pacs", peer, NOW, chance)
    assert outbox.deliver_once(store, "pacs", peer, NOW, chance) == 0
    assert peer.got == [uid]
    assert store.deliveries.counts()[DeliveryState.SENT] == 1


def test_a_clock_that_is_set_back_makes_nothing_wait(store: Store, chance: random.Random) -> None:
    peer = Peer(s1=DOWN)
    uid = assessed(store, 1, [("report", "pacs")])
    outbox.deliver_once(store, "pacs", peer, NOW, chance)
    assert store.deliveries.due("pacs", NOW) == []
    peer.answers.clear()
    outbox.deliver_once(store, "pacs", peer, NOW - timedelta(days=1), chance)
    assert peer.got == [uid]


def test_a_clock_that_is_set_forward_kills_nothing(store: Store, chance: random.Random) -> None:
    peer = Peer(s1=DOWN)
    assessed(store, 1, [("report", "pacs")])
    for years in range(5):
        outbox.deliver_once(store, "pacs", peer, NOW + timedelta(days=365 * years), chance)
    assert peer.asked == 5
    assert store.deliveries.counts()[DeliveryState.PENDING] == 1


def test_a_refused_neighbour_changes_nothing_for_the_others(store: Store, chance: random.Random) -> None:
    peer = Peer(s1=REFUSED)
    assessed(store, 1, [("report", "pacs")])
    good = assessed(store, 2, [("report", "pacs")])
    outbox.deliver_once(store, "pacs", peer, NOW, chance)
    assert peer.got == [good]
    assert store.deliveries.due("pacs", NOW) == []  # the refused one keeps its pause


# With real peers


@needs_dcmtk
def test_an_archive_that_was_down_gets_each_document_once(store: Store, tmp_path: Path, chance: random.Random) -> None:
    port = free_port()
    archive = Destination(name="pacs", ae_title="ARCHIVE", host="127.0.0.1", port=port)
    settings = Settings(destinations=(archive,), alerts=(Alert(url="json://127.0.0.1:9"),))
    (tmp_path / "documents").mkdir()
    for n in range(5):
        (tmp_path / "documents" / f"2.25.{1000 + n}.dcm").write_bytes(document(n))
        assessed(store, n, [("report", "pacs")])
    send = outbox.senders(settings, tmp_path)["pacs"]

    assert outbox.deliver_once(store, "pacs", send, NOW, chance) == 5
    assert store.deliveries.counts()[DeliveryState.PENDING] == 5
    now = store.deliveries.next_due() or NOW
    arrived: list[str] = []
    with storescp(tmp_path / "in", port):
        while outbox.deliver_once(store, "pacs", send, now, chance):
            arrived += [path.name for path in (tmp_path / "in").iterdir()]
            shutil.rmtree(tmp_path / "in")  # a document that comes again would be seen again
            (tmp_path / "in").mkdir()
    assert len(arrived) == len(set(arrived)) == 5
    assert store.deliveries.counts() == {DeliveryState.SENT: 5, DeliveryState.PENDING: 0, DeliveryState.DEAD: 0}


def test_an_alert_goes_out_once_its_webhook_is_there(store: Store, tmp_path: Path, chance: random.Random) -> None:
    with webhook(status=500) as (url, refused):
        settings = Settings(alerts=(Alert(url=url),))
        assessed(store, 1, [("alert", "alert-1")], alert=True)
        send = outbox.senders(settings, tmp_path)["alert-1"]
        assert outbox.deliver_once(store, "alert-1", send, NOW, chance) == 1
    assert len(refused) == 1
    later = NOW + outbox.LONGEST_PAUSE
    with webhook() as (url, came):
        send = outbox.senders(Settings(alerts=(Alert(url=url),)), tmp_path)["alert-1"]
        while outbox.deliver_once(store, "alert-1", send, later, chance):
            pass
    assert [(one["title"], one["message"]) for one in came] == [("Repeat this scan", "Severe motion.")]


def test_an_alert_with_a_broken_url_is_refused(store: Store, tmp_path: Path, chance: random.Random) -> None:
    assessed(store, 1, [("alert", "alert-1")], alert=True)
    send = outbox.senders(Settings(alerts=(Alert(url="carrier-pigeon://x"),)), tmp_path)["alert-1"]
    outbox.deliver_once(store, "alert-1", send, NOW, chance)
    assert store.deliveries.counts()[DeliveryState.PENDING] == 1
    series = store.overview.recent()[0]
    assert series.latest is not None
    assert [x.refusals for d in series.latest.documents for x in d.deliveries] == [1]
