"""What is read of a performed procedure step: its status and the UIDs of its series' instances, and nothing else."""

from __future__ import annotations

import contextlib
import random
import time
import warnings
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from performed_steps import (
    COMPLETED,
    DISCONTINUED,
    IN_PROGRESS,
    PATIENT_ID,
    PATIENT_NAME,
    STEP,
    beginning,
    encoded,
    ending,
    part10,
)
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.dsutils import encode

from qcnode.intake import procedure_step
from qcnode.intake.procedure_step import Status, Unacceptable, read_report
from qcnode.ledger.records import StepReport
from qcnode.states import StepState

SERIES = {"1.2.3": ["1.2.3.1", "1.2.3.2"], "1.2.4": ["1.2.4.1"]}
uids = st.from_regex(r"1\.2\.[1-9][0-9]{0,20}", fullmatch=True)
steps = st.dictionaries(uids, st.lists(uids, max_size=6), max_size=4)


def read(ds: Dataset, *, begins: bool = False) -> StepReport:
    return read_report(part10(encoded(ds)), ImplicitVRLittleEndian, STEP, begins=begins)


def refused(ds: Dataset, *, begins: bool = False) -> Status:
    with pytest.raises(Unacceptable) as raised:
        read(ds, begins=begins)
    assert len(str(raised.value)) <= 64, "an Error Comment is a long string (LO)"
    return raised.value.status


@given(steps)
def test_what_it_says_is_what_is_read(series: dict[str, list[str]]) -> None:
    assert read(ending(series)) == StepReport(STEP, StepState.COMPLETED, {uid: set(s) for uid, s in series.items()})


@given(steps, st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(series: dict[str, list[str]], generator: random.Random) -> None:
    again = [(uid, [*sops, *sops[:2]]) for uid, sops in series.items()]
    generator.shuffle(again)
    assert read(ending(dict(again))) == read(ending(series))


@pytest.mark.parametrize(
    ("syntax", "encoding"),
    [
        (ImplicitVRLittleEndian, (True, True)),
        (ExplicitVRLittleEndian, (False, True)),
        (ExplicitVRBigEndian, (False, False)),
    ],
)
def test_it_is_the_same_in_every_transfer_syntax(syntax: str, encoding: tuple[bool, bool]) -> None:
    data = encode(ending(SERIES), *encoding)
    assert data is not None
    assert read_report(part10(data, syntax), syntax, STEP, begins=False) == read(ending(SERIES))


def test_what_is_deflated_is_not_looked_into() -> None:
    data = encode(ending(SERIES), False, True, True)
    assert data is not None
    with pytest.raises(Unacceptable) as raised:
        read_report(part10(data, DeflatedExplicitVRLittleEndian), DeflatedExplicitVRLittleEndian, STEP, begins=False)
    assert raised.value.status is Status.NO_SUCH_SOP_CLASS


def test_raw_data_of_a_series_is_not_waited_for() -> None:
    ds = ending(SERIES)
    first = ds.PerformedSeriesSequence[0]
    raw = first.ReferencedImageSequence.pop()
    first.ReferencedNonImageCompositeSOPInstanceSequence = [raw]
    uid, sops = next(iter(SERIES.items()))
    assert read(ds) == read(ending(SERIES | {uid: set(sops) - {raw.ReferencedSOPInstanceUID}}))


def test_nothing_of_the_patient_is_read() -> None:
    report = read(beginning(), begins=True)
    assert report == StepReport(STEP, StepState.IN_PROGRESS, {})
    assert not [secret for secret in (PATIENT_NAME, PATIENT_ID, "20200101") if secret in repr(report)]


def test_what_is_not_said_stays_as_it_was() -> None:
    said = ending({}, status=None)
    del said.PerformedSeriesSequence
    assert read(said) == StepReport(STEP, None, None)


@pytest.mark.parametrize("status", [IN_PROGRESS, COMPLETED, DISCONTINUED])
def test_every_status_may_be_set_and_a_step_begins_in_progress(status: str) -> None:
    assert read(ending({}, status)).state == status
    if status != IN_PROGRESS:
        assert refused(beginning(status), begins=True) is Status.INVALID_ATTRIBUTE_VALUE


def spoiled(change: Callable[[Dataset], object]) -> Dataset:
    ds = ending(SERIES)
    change(ds)
    return ds


def gone(keyword: str) -> Callable[[Dataset], None]:
    return lambda ds: delattr(ds, keyword)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda ds: setattr(ds, "PerformedProcedureStepStatus", "DONE"), Status.INVALID_ATTRIBUTE_VALUE),
        (lambda ds: setattr(ds, "PerformedProcedureStepStatus", ""), Status.MISSING_ATTRIBUTE_VALUE),
        (lambda ds: gone("SeriesInstanceUID")(ds.PerformedSeriesSequence[1]), Status.MISSING_ATTRIBUTE),
        (
            lambda ds: setattr(ds.PerformedSeriesSequence[0], "SeriesInstanceUID", ""),
            Status.MISSING_ATTRIBUTE_VALUE,
        ),
        (
            lambda ds: gone("ReferencedSOPInstanceUID")(ds.PerformedSeriesSequence[0].ReferencedImageSequence[1]),
            Status.MISSING_ATTRIBUTE,
        ),
    ],
    ids=["unknown-status", "empty-status", "no-series", "empty-series", "no-instance"],
)
def test_what_is_wrong_or_missing_has_its_status(change: Callable[[Dataset], object], status: Status) -> None:
    assert refused(spoiled(change)) is status


def test_a_name_that_is_no_uid_is_an_invalid_value() -> None:
    data = encoded(ending(SERIES)).replace(b"1.2.3.2\0", b"../../x\0")
    with pytest.raises(Unacceptable) as raised:
        read_report(part10(data), ImplicitVRLittleEndian, STEP, begins=False)
    assert raised.value.status is Status.INVALID_ATTRIBUTE_VALUE
    assert ".." not in str(raised.value)


def test_a_beginning_without_a_status_lacks_an_attribute() -> None:
    ds = beginning()
    del ds.PerformedProcedureStepStatus
    assert refused(ds, begins=True) is Status.MISSING_ATTRIBUTE


def test_more_instances_than_a_step_may_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedure_step, "MOST_ITEMS", 5)  # two series, three instances
    assert read(ending(SERIES)).series is not None
    assert refused(ending({**SERIES, "1.2.5": ["1.2.5.1"]})) is Status.RESOURCE_LIMITATION


def test_more_series_than_a_step_may_name_are_refused() -> None:
    many = {f"1.2.{number}": ["1.1"] for number in range(procedure_step.MOST_SERIES + 1)}
    assert refused(ending(many)) is Status.RESOURCE_LIMITATION
    many.popitem()
    assert len(read(ending(many)).series or {}) == procedure_step.MOST_SERIES


@pytest.mark.parametrize("item", [b"\xfe\xff\x00\xe0\0\0\0\0", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"])
def test_a_flood_of_items_is_refused_before_it_is_read(item: bytes) -> None:
    flood = b"\x40\x00\x40\x03\xff\xff\xff\xff" + item * 400_000
    began = time.process_time()
    with pytest.raises(Unacceptable) as raised:
        read_report(part10(flood), ImplicitVRLittleEndian, STEP, begins=False)
    assert raised.value.status is Status.RESOURCE_LIMITATION
    assert time.process_time() - began < 0.5


@given(st.integers(0, 2**32))
def test_damaged_bytes_end_in_a_report_or_in_a_status(seed: int) -> None:
    generator = random.Random(seed)
    implicit = generator.random() < 0.5
    data = bytearray(encoded(ending(SERIES), implicit=implicit))
    for _ in range(generator.randrange(1, 8)):
        at = generator.randrange(len(data))
        if generator.random() < 0.2:
            del data[at : at + generator.randrange(1, 40)]
        elif data:
            data[at] = generator.choice((0, 1, 0xFE, 0xFF, generator.randrange(256)))
        if not data:
            break
    syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of what is wrong with the bytes
        with contextlib.suppress(Unacceptable):
            assert read_report(part10(bytes(data), syntax), syntax, STEP, begins=False).step_uid == STEP
    assert time.process_time() - began < 1.0
