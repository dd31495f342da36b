"""People's words beside the machine's: added, never changed, and said of one revision."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_cases import NOW, claimed, received
from reporting_cases import ASSESSMENTS

from qcnode.artifacts import Artifact, Severity
from qcnode.config import StateFolder
from qcnode.errors import PermanentError
from qcnode.ledger.models import AssessmentRow, Opinion
from qcnode.ledger.opinions import corrections, spoken
from qcnode.ledger.store import Store
from qcnode.people import Word

NOISE, MOTION = Artifact.NOISE, Artifact.MOTION


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        received(opened)
        assert opened.finish(claimed(opened), ASSESSMENTS["rescan"], [], [], NOW)
        yield opened


def row(store: Store) -> AssessmentRow:
    series = store.overview.detail("1.2.3")
    assert series is not None
    assert series.latest is not None
    return series.latest


def machine(store: Store) -> list[tuple[object, ...]]:
    found = row(store)
    return [(found.decision, tuple(found.reasons)), *((s.artifact, s.severity, s.p0, s.p1, s.p2) for s in found.scores)]


WORDS = st.one_of(
    st.tuples(st.just(Word.AGREED), st.just({})),
    st.tuples(st.just(Word.CORRECTED), st.dictionaries(st.sampled_from(Artifact), st.sampled_from(Severity))),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(st.tuples(st.sampled_from(["mira", "jo"]), WORDS), max_size=6))
def test_the_last_word_of_each_person_stands_and_the_machine_s_record_stays(
    store: Store, said: list[tuple[str, tuple[Word, dict[Artifact, Severity]]]]
) -> None:
    before, rows = machine(store), len(row(store).opinions)
    graded = {score.artifact: Severity(score.severity) for score in row(store).scores}
    for by in ("mira", "jo"):
        store.opinions.agree("1.2.3", 1, by, NOW)  # each example begins where nobody differs
    stands: dict[str, dict[Artifact, Severity]] = {"mira": dict(graded), "jo": dict(graded)}
    for by, (word, grades) in said:
        if word is Word.AGREED:
            store.opinions.agree("1.2.3", 1, by, NOW)
            stands[by] = dict(graded)
        else:
            added = store.opinions.correct("1.2.3", 1, grades, by, NOW)
            assert added == sum(stands[by][artifact] is not grade for artifact, grade in grades.items())
            stands[by] |= grades
    after = row(store).opinions
    for by, grades in stands.items():
        assert graded | corrections(after, by) == grades
    assert machine(store) == before
    assert len(after) >= rows, "rows are added, never taken"


def test_what_was_said_already_is_not_said_twice(store: Store) -> None:
    assert [store.opinions.acknowledge("1.2.3", 1, "mira", NOW) for _ in range(2)] == [1, 0]
    assert [store.opinions.agree("1.2.3", 1, "mira", NOW) for _ in range(2)] == [1, 0]
    assert [store.opinions.correct("1.2.3", 1, {NOISE: Severity.SEVERE}, "mira", NOW) for _ in range(2)] == [1, 0]
    assert store.opinions.agree("1.2.3", 1, "mira", NOW) == 1, "it takes the correction back"
    assert store.opinions.acknowledge("1.2.3", 1, "jo", NOW) == 1
    assert row(store).acknowledged_by == ["mira", "jo"]


def test_the_machine_s_own_grade_is_no_correction(store: Store) -> None:
    assert store.opinions.correct("1.2.3", 1, {MOTION: Severity.SEVERE}, "mira", NOW) == 0
    assert store.opinions.correct("1.2.3", 1, {MOTION: Severity.NONE}, "mira", NOW) == 1
    assert spoken(row(store).opinions) == {MOTION: [("mira", Severity.NONE)]}


def test_each_word_is_an_event_with_its_person_whom_the_log_does_not_name(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        store.opinions.acknowledge("1.2.3", 1, "mira", NOW)
        store.opinions.agree("1.2.3", 1, "mira", NOW)
        store.opinions.correct("1.2.3", 1, {NOISE: Severity.NONE}, "mira", NOW)
    events = [(event.kind, event.detail) for event in reversed(store.overview.events(3))]
    assert events == [
        ("verdict_acknowledged", {"revision": 1, "by": "mira"}),
        ("verdict_agreed", {"revision": 1, "by": "mira"}),
        ("grade_corrected", {"revision": 1, "artifact": "Noise", "grade": 0, "machine": 1, "by": "mira"}),
    ]
    assert "grade_corrected series=1.2.3 revision=1 artifact=Noise grade=0 machine=1" in caplog.text
    assert "mira" not in caplog.text


def test_a_word_belongs_to_the_revision_that_it_was_said_of(store: Store) -> None:
    store.opinions.correct("1.2.3", 1, {NOISE: Severity.NONE}, "mira", NOW)
    received(store, number=2)
    with pytest.raises(PermanentError, match="Revision 2 of this series has no verdict"):
        store.opinions.agree("1.2.3", 2, "mira", NOW)
    assert store.finish(claimed(store, revision=2), ASSESSMENTS["accept"], [], [], NOW)
    assert row(store).opinions == []
    store.opinions.acknowledge("1.2.3", 1, "mira", NOW)
    assert row(store).opinions == [], "said of the first, though the second is here"


def test_what_the_machine_did_not_grade_cannot_be_corrected(store: Store) -> None:
    received(store, "1.2.4")
    assert store.finish(claimed(store, "1.2.4"), ASSESSMENTS["not_assessable"], [], [], NOW)
    with pytest.raises(PermanentError, match="Only what the machine graded"):
        store.opinions.correct("1.2.4", 1, {NOISE: Severity.NONE}, "mira", NOW)
    assert store.opinions.acknowledge("1.2.4", 1, "mira", NOW) == 1


def test_a_row_says_who_when_and_what(store: Store) -> None:
    store.opinions.correct("1.2.3", 1, {NOISE: Severity.SEVERE}, "mira", NOW)
    (one,) = row(store).opinions
    assert isinstance(one, Opinion)
    assert (one.by, one.at, one.word, one.artifact, one.severity) == ("mira", NOW, Word.CORRECTED, NOISE, 2)


def test_a_revision_that_no_database_can_count_to_is_refused(store: Store) -> None:
    with pytest.raises(PermanentError, match="refused a value"):
        store.opinions.agree("1.2.3", 10**30, "mira", NOW)
