"""Store-and-forward: each image goes once to each destination that asks for images, exactly as it came, and stays until
it has."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from delivery_peers import destination, document, free_port, needs_dcmtk, peer, storescp
from dicom_instances import classic_slice
from pydicom import dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)

from qcnode.config import Destination, Settings, StateFolder
from qcnode.delivery import outbox
from qcnode.delivery.dicom import Image, send
from qcnode.delivery.outcome import ACCEPTED, UNTRIED, Answer, Outcome
from qcnode.intake.spool import Spool, instance_path
from qcnode.ledger.records import DueDelivery, Forwarding, NewDocument, Received
from qcnode.ledger.store import Store
from qcnode.states import DeliveryState, State
from qcnode.verdict import Assessment, Decision, Verdict

NOW = datetime(2025, 3, 1, 9, 0, tzinfo=UTC)
MONTH = NOW + timedelta(days=31)
SERIES = "1.2.3"
PACS = Forwarding("pacs", "ARCHIVE")
SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


def received(number: int, calling_ae: str = "SWOOP", syntax: str = ExplicitVRLittleEndian) -> Received:
    return Received(
        series_uid=SERIES,
        study_uid="1.2",
        sop_instance_uid=f"{SERIES}.{number}",
        sop_class_uid=MRImageStorage,
        transfer_syntax_uid=syntax,
        sha256="a" * 64,
        size=1000,
        received_at=NOW,
        calling_ae=calling_ae,
        facts={},
    )


def complete(
    store: Store, numbers: Sequence[int], revision: int = 1, *to: Forwarding, calling_ae: str = "SWOOP"
) -> None:
    store.record_instances([received(number, calling_ae) for number in numbers])
    assert store.mark_ready(SERIES, revision, "quiet", NOW, to or (PACS,))


def assess(store: Store, decision: Decision = Decision.ACCEPT, to: Sequence[Forwarding] = ()) -> None:
    claim = store.claim(NOW)
    assert claim is not None
    uid = f"2.25.{claim.revision}"
    report = NewDocument("report", "1.2.840.10008.5.1.4.1.1.88.34", uid, f"documents/{uid}.dcm")
    assessment = Assessment(Verdict(decision, ("Fine.",)), SERIES)
    assert store.finish(claim, assessment, [report], [("report", "pacs")], NOW, to)


def on_their_way(store: Store, name: str = "pacs") -> list[str]:
    return [str(due.sop_instance_uid) for due in store.deliveries.due(name, NOW) if due.kind == "images"]


def uids(*numbers: int) -> list[str]:
    return [f"{SERIES}.{number}" for number in numbers]


# Which images are due


def test_images_are_due_the_moment_their_series_is_complete(store: Store) -> None:
    store.record_instances([received(1), received(2)])
    assert on_their_way(store) == []
    assert store.mark_ready(SERIES, 1, "quiet", NOW, [PACS])
    assert on_their_way(store) == uids(1, 2)


def test_a_late_image_follows_alone(store: Store) -> None:
    complete(store, [1, 2])
    for due in store.deliveries.due("pacs", NOW):
        store.deliveries.mark_sent(due.id, NOW)
    assess(store)
    complete(store, [1, 2, 3], 2)
    assert on_their_way(store) == uids(3)


def test_none_goes_back_to_the_ae_that_sent_it(store: Store) -> None:
    store.record_instances([received(1, "SWOOP"), received(2, "ARCHIVE")])
    assert store.mark_ready(SERIES, 1, "quiet", NOW, [PACS])
    assert on_their_way(store) == uids(1)


def test_a_destination_may_want_those_of_some_senders_only(store: Store) -> None:
    store.record_instances([received(1, "SWOOP"), received(2, "OTHER")])
    assert store.mark_ready(SERIES, 1, "quiet", NOW, [PACS, Forwarding("console", "CONSOLE", ("OTHER",))])
    assert on_their_way(store) == uids(1, 2)
    assert on_their_way(store, "console") == uids(2)


def test_a_verdict_may_decide_who_gets_the_images() -> None:
    every = Destination(name="pacs", ae_title="ARCHIVE", host="h", port=104, send=("images", "report"))
    bad = every.model_copy(update={"name": "physicist", "verdicts": (Decision.RESCAN,)})
    none = every.model_copy(update={"name": "console", "send": ("capture",)})
    names = [forwarding.destination for forwarding in outbox.forwardings((every, bad, none))]
    assert names == ["pacs"]
    for decision, expected in ((Decision.RESCAN, ["physicist"]), (Decision.ACCEPT, [])):
        assert [f.destination for f in outbox.forwardings((every, bad, none), decision)] == expected
        rows = outbox.deliveries(decision, ("report", "capture"), "SWOOP", (every, bad, none), {})
        assert rows == [("report", "pacs"), *(("report", name) for name in expected), ("capture", "console")]


def test_images_that_wait_for_the_verdict_are_due_with_it(store: Store) -> None:
    store.record_instances([received(1)])
    assert store.mark_ready(SERIES, 1, "quiet", NOW)
    assert on_their_way(store) == []
    assess(store, Decision.RESCAN, [PACS])
    assert on_their_way(store) == uids(1)


def test_documents_go_before_images_that_wait_longer(store: Store) -> None:
    complete(store, range(5))
    assess(store)
    assert [due.kind for due in store.deliveries.due("pacs", NOW, 3)] == ["report", "images", "images"]


def test_thousands_of_images_are_due_at_once_and_cheaply(store: Store) -> None:
    store.record_instances([received(number) for number in range(3000)])
    started = time.process_time()
    assert store.mark_ready(SERIES, 1, "quiet", NOW, [PACS, Forwarding("console", "CONSOLE")])
    assert time.process_time() - started < 2.0
    assert store.deliveries.counts()[DeliveryState.PENDING] == 6000
    started = time.process_time()
    batch = store.deliveries.due("pacs", NOW)
    for due in batch:
        assert due.kind == "images"
    assert len(batch) == 100
    assert time.process_time() - started < 0.5


def test_a_batch_of_images_is_one_event(store: Store) -> None:
    complete(store, range(20))
    outbox.deliver_once(store, "pacs", lambda due: [ACCEPTED] * len(due), NOW, random.Random(1))
    series = store.overview.detail(SERIES)
    assert series is not None
    assert [event.detail for event in series.events if event.kind == "delivered"] == [
        {"document": "images", "destination": "pacs", "instances": 20}
    ]


# Retention and retry


def test_an_image_stays_until_it_was_delivered(store: Store) -> None:
    complete(store, [1, 2])
    assess(store)
    first, *rest = store.deliveries.due("pacs", NOW)
    for due in rest:
        store.deliveries.mark_sent(due.id, NOW)
    assert store.retainable(MONTH, 30, ["pacs"]) == []
    store.deliveries.mark_sent(first.id, NOW)
    assert store.retainable(MONTH, 30, ["pacs"]) == [(SERIES, tuple(uids(1, 2)))]


def test_an_image_that_nobody_took_waits_for_a_person_or_until_its_destination_is_given_up(store: Store) -> None:
    complete(store, [1])
    assess(store)
    for due in store.deliveries.due("pacs", NOW):
        if due.kind == "images":
            store.deliveries.mark_dead(due.id, "refused", NOW)
        else:
            store.deliveries.mark_sent(due.id, NOW)
    assert store.retainable(MONTH, 30, ["pacs"]) == []
    assert store.retainable(MONTH, 30, ["another"]) == [(SERIES, tuple(uids(1)))]
    assert store.retry(SERIES, NOW)
    assert on_their_way(store) == uids(1)
    series = store.overview.detail(SERIES)
    assert series is not None
    assert (series.state, series.revision) == (State.ASSESSED, 1), "its grades stand"


def test_what_is_due_to_a_destination_that_is_named_no_more_is_seen_and_comes_back(store: Store) -> None:
    complete(store, [1])
    assert store.deliveries.bury(["pacs"], NOW) == 0
    assert store.deliveries.bury(["archive"], NOW) == 1
    assert store.deliveries.counts()[DeliveryState.DEAD] == 1
    assert store.deliveries.revive(NOW) == 1
    assert on_their_way(store) == uids(1)


# On the wire


def image(folder: Path, number: int, syntax: UID) -> Image:
    """A slice in the spool, encoded as a modality might."""
    ds = classic_slice(number, series=SERIES)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    if syntax == RLELossless:
        ds.compress(RLELossless, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        ds["PixelData"].VR = "OB"
    dcmwrite(file, ds, enforce_file_format=True, little_endian=None, implicit_vr=None)
    Spool(folder).put(file.getvalue(), SERIES, f"{SERIES}.{number}")
    return Image(instance_path(folder, SERIES, f"{SERIES}.{number}"), str(ds.SOPClassUID), str(syntax))


def data_set(part10: bytes) -> bytes:
    return part10[144 + int.from_bytes(part10[140:144], "little") :]


@needs_dcmtk
def test_what_arrives_is_what_came_byte_for_byte_in_every_transfer_syntax(tmp_path: Path) -> None:
    port = free_port()
    images = [image(tmp_path, number, syntax) for number, syntax in enumerate(SYNTAXES)]
    with storescp(tmp_path / "in", port, "+xa", "+B"):
        outcomes = send([*images, document(1)], destination(port), "QCNODE")
    assert outcomes == [ACCEPTED] * (len(images) + 1)
    arrived = {dcmread(path).SOPInstanceUID: path for path in (tmp_path / "in").iterdir()}
    for number, (sent, syntax) in enumerate(zip(images, SYNTAXES, strict=True)):
        path = arrived[f"{SERIES}.{number}"]
        assert dcmread(path).file_meta.TransferSyntaxUID == syntax
        assert data_set(path.read_bytes()) == data_set(sent.path.read_bytes()), syntax.name


def test_a_transfer_syntax_that_the_peer_does_not_take_is_refused_and_never_rewritten(tmp_path: Path) -> None:
    deflated = image(tmp_path, 1, DeflatedExplicitVRLittleEndian)
    explicit = image(tmp_path, 2, ExplicitVRLittleEndian)
    with peer(lambda event: 0x0000, classes=(MRImageStorage,), syntaxes=(ExplicitVRLittleEndian,)) as port:
        mixed = send([deflated, explicit], destination(port), "QCNODE")
        (alone,) = send([deflated], destination(port), "QCNODE")
    assert [outcome.answer for outcome in mixed] == [Answer.REFUSED, Answer.ACCEPTED]
    assert alone.answer is Answer.REFUSED
    assert "MR Image Storage in Deflated Explicit VR Little Endian" in alone.error


def test_an_image_that_is_gone_holds_up_no_other(tmp_path: Path) -> None:
    gone, here = image(tmp_path, 1, ExplicitVRLittleEndian), image(tmp_path, 2, ExplicitVRLittleEndian)
    gone.path.unlink()
    with peer(lambda event: 0x0000, classes=(MRImageStorage,)) as port:
        outcomes = send([gone, here], destination(port), "QCNODE")
    assert [outcome.answer for outcome in outcomes] == [Answer.REFUSED, Answer.ACCEPTED]


def test_each_image_arrives_once_whatever_the_turns_are(store: Store, tmp_path: Path) -> None:
    """Turns that are cut short, a node that starts anew: each image counts once, unless nobody could know of it."""
    for number in range(12):
        image(tmp_path, number, ExplicitVRLittleEndian)
    complete(store, range(12))
    got: Counter[str] = Counter()

    def on_store(event: object) -> int:
        got[event.request.AffectedSOPInstanceUID] += 1
        return 0x0000

    stops = iter([False, False, True] * 20)
    with peer(on_store, classes=(MRImageStorage,)) as port:
        settings = Settings(destinations=(destination(port, send=("images",)),))
        for _ in range(12):
            # As after a restart: nothing is remembered but what the ledger says.
            sender = outbox.senders(settings, tmp_path, lambda: next(stops))["pacs"]
            outbox.deliver_once(store, "pacs", sender, NOW, random.Random(1))
    assert got == Counter(uids(*range(12)))
    assert store.deliveries.counts() == {DeliveryState.SENT: 12, DeliveryState.PENDING: 0, DeliveryState.DEAD: 0}


@pytest.mark.parametrize("fault", ["third", "abort", "down"])
def test_a_peer_with_a_fault_ends_with_every_image_once(store: Store, fault: str) -> None:
    """A failure for every third, an abort after each accepted one, an outage: none is stuck, none counts twice."""
    complete(store, range(30))
    got: Counter[str] = Counter()
    asked = 0

    def sender(due: Sequence[DueDelivery]) -> list[Outcome]:
        nonlocal asked
        outcomes = []
        for position, one in enumerate(due):
            asked += 1
            if fault == "third" and asked % 3 == 0:
                outcomes.append(Outcome(Answer.REFUSED, "Refused (0xC000)."))
            elif fault == "abort" and position > 0:
                outcomes.append(Outcome(Answer.BROKEN, "Ended.") if position == 1 else UNTRIED)
            elif fault == "down" and asked <= 200:
                outcomes.append(Outcome(Answer.UNREACHABLE, "Nobody there."))
            else:
                got[str(one.sop_instance_uid)] += 1
                outcomes.append(ACCEPTED)
        return outcomes

    now, generator = NOW, random.Random(3)
    for _ in range(200):
        if not outbox.deliver_once(store, "pacs", sender, now, generator):
            if (due_at := store.deliveries.next_due()) is None:
                break
            now = max(now, due_at)
    assert got == Counter(uids(*range(30)))
    assert store.deliveries.counts()[DeliveryState.SENT] == 30
