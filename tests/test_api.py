"""The interface for programs: the ledger's own data, under the page's rules, and never a server's error."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from page_cases import NOW, received, served
from page_series import KINDS, graded, series, ungraded
from schemathesis import GenerationMode, openapi
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from qcnode.artifacts import Artifact
from qcnode.config import StateFolder
from qcnode.ledger.records import Received
from qcnode.ledger.store import Store
from qcnode.passwords import digest
from qcnode.people import Role

HOSTILE = '<b x="&">AE</b>'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        for role in Role:
            opened.tokens.add(f"t.{role.value}", role, digest(role.value), NOW)
        yield opened


@pytest.fixture
def api(store: Store, tmp_path: Path) -> Iterator[httpx.Client]:
    with served(store, tmp_path) as page:
        page.base_url, page.timeout = page.base_url.join("api/v1"), 60.0  # type: ignore[assignment]
        yield page


def arrived(store: Store, number: int, *, calling_ae: str = "SWOOP1") -> str:
    """A series whose number-th minute it is."""
    uid, at = f"1.2.{number}", NOW + timedelta(minutes=number)
    store.record_instances([Received(uid, "1.2", f"{uid}.1", "1.2.840", "1.2.1", "a" * 64, 9, at, calling_ae, {})])
    return uid


def uids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["series_uid"] for one in answer.json()["series"]]


def bearer(role: Role) -> dict[str, str]:
    return {"Authorization": f"Bearer {role.value}"}


def test_the_pages_together_are_all_series_newest_first_each_once(store: Store, api: httpx.Client) -> None:
    all_of_them = [arrived(store, number) for number in range(7)]
    found: list[str] = []
    after: dict[str, str] = {}
    for _ in range(10):
        answer = api.get("/series", params={"limit": 3, **after})
        found += uids(answer)
        if answer.json()["next"] is None:
            break
        after = {"after": answer.json()["next"]}
    assert found == list(reversed(all_of_them))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"verdict": "rescan"}, ["1.2.3"]),
        ({"verdict": ["rescan", "accept"]}, ["1.2.4", "1.2.3"]),
        ({"state": "receiving"}, ["1.2.9", "1.2.8"]),
        ({"plane": "axial"}, ["1.2.4", "1.2.3"]),
        ({"plane": "coronal"}, []),
        ({"scanner": "OTHER"}, ["1.2.9"]),
        ({"scanner": HOSTILE}, []),
        ({"since": (NOW + timedelta(minutes=9)).isoformat()}, ["1.2.9"]),
        ({"until": (NOW + timedelta(minutes=8)).isoformat()}, ["1.2.4", "1.2.3"]),
        ({"since": "2026-03-01T14:38:15+02:00", "until": "2026-03-01T12:39:00Z"}, ["1.2.8"]),
        ({"state": ["receiving", "assessed"], "scanner": "SWOOP1", "verdict": "accept"}, ["1.2.4"]),
    ],
)
def test_each_filter_takes_what_it_names(
    wanted: dict[str, Any], expected: list[str], store: Store, api: httpx.Client
) -> None:
    series(store, "1.2.3", graded(Motion=2))
    series(store, "1.2.4", graded(), at=NOW + timedelta(seconds=1))
    arrived(store, 8)
    arrived(store, 9, calling_ae="OTHER")
    assert uids(api.get("/series", params=wanted)) == expected


def test_a_series_tells_what_the_ledger_holds(store: Store, api: httpx.Client) -> None:
    series(store, "1.2.3", graded(Motion=2, Noise=1), destination="pacs")
    store.opinions.correct("1.2.3", 1, {Artifact.MOTION: 1}, "mira", NOW)  # type: ignore[dict-item]
    (one,) = api.get("/series").json()["series"]
    assert one["latest"]["verdict"] == "rescan"
    assert one["latest"]["reasons"] == list(graded(Motion=2, Noise=1).verdict.reasons)
    assert one["latest"]["scores"]["Motion"] == {"severity": 2, "probabilities": [0.2, 0.3, 0.5], "slices": None}
    assert set(one["latest"]["scores"]) == {artifact.value for artifact in Artifact}
    detail = api.get("/series/1.2.3").json()
    assert detail | one == detail, "the list says the same"
    (revision,) = detail["revisions"]
    assert [document["kind"] for document in revision["documents"]] == list(KINDS)
    assert revision["documents"][0]["deliveries"][0]["destination"] == "pacs"
    (opinion,) = revision["opinions"]
    assert (opinion["by"], opinion["word"], opinion["artifact"], opinion["severity"]) == (
        "mira",
        "corrected",
        "Motion",
        1,
    )
    assert [event["kind"] for event in detail["events"]][-2:] == ["assessed", "grade_corrected"]
    received(store, number=2)
    later = api.get("/series/1.2.3").json()
    assert (later["state"], later["revision"], later["latest"]["revision"]) == ("receiving", 2, 1)


def test_a_word_is_stored_in_the_token_s_name(store: Store, api: httpx.Client) -> None:
    series(store, "1.2.3", graded(Motion=2, Noise=1), destination="pacs")
    said = {"word": "corrected", "revision": 1, "grades": {"Motion": 1, "Noise": 0}}
    for expected in (2, 0):
        answer = api.post("/series/1.2.3/opinions", json=said, headers=bearer(Role.TECHNOLOGIST))
        assert answer.json() == {"stored": expected}, "what was said is not said twice"
    assert api.post(
        "/series/1.2.3/opinions", json={"word": "agreed", "revision": 1}, headers=bearer(Role.ADMIN)
    ).json() == {"stored": 1}
    found = store.overview.detail("1.2.3")
    assert found is not None
    assert [(one.by, one.word.value) for one in found.assessments[0].opinions] == [
        ("t.technologist", "corrected"),
        ("t.technologist", "corrected"),
        ("t.admin", "agreed"),
    ]


@pytest.mark.parametrize("after", ["", "x", "_1.2.3", "20261301T123015000000Z_1.2"])
def test_what_is_not_the_next_of_a_page_is_refused(after: str, api: httpx.Client) -> None:
    answer = api.get("/series", params={"after": after})
    assert answer.status_code == 422
    assert "begin without it" in answer.text


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"word": "agreed", "revision": 2}, 409),
        ({"word": "agreed", "revision": 10**30}, 422),
        ({"word": "agreed", "revision": 1, "grades": {"Motion": 1}}, 422),
        ({"word": "corrected", "revision": 1}, 422),
        ({"word": "corrected", "revision": 1, "grades": {"Motion": 3}}, 422),
        ({"word": "corrected", "revision": 1, "grades": {"Beauty": 1}}, 422),
        ({"word": "rejected", "revision": 1}, 422),
        ([], 422),
    ],
)
def test_what_cannot_be_said_is_refused(said: object, status: int, store: Store, api: httpx.Client) -> None:
    series(store, "1.2.3", graded(Motion=2, Noise=1), destination="pacs")
    assert api.post("/series/1.2.3/opinions", json=said, headers=bearer(Role.ADMIN)).status_code == status
    found = store.overview.detail("1.2.3")
    assert found is not None
    assert found.assessments[0].opinions == []


def test_who_may_see_the_page_may_read_here_and_a_token_s_role_decides_who_speaks(
    store: Store, api: httpx.Client
) -> None:
    series(store, "1.2.3", graded(Motion=2, Noise=1), destination="pacs")
    word = {"word": "acknowledged", "revision": 1}
    assert api.get("/series").status_code == 200, "open, as the page is, while there are no accounts"
    assert api.post("/series/1.2.3/opinions", json=word).status_code == 401
    store.people.add("mira", Role.ADMIN, "a hash", NOW)
    for path in ("/series", "/series/1.2.3", "/system"):
        answer = api.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "1.2.3" not in answer.text
        for shown in ("Bearer invented", "Basic bWlyYTp4"):
            assert api.get(path, headers={"Authorization": shown}).status_code == 401
        for role in Role:
            assert api.get(path, headers=bearer(role)).status_code == 200
    figures = api.base_url.join("/metrics")
    assert api.get(figures, headers=bearer(Role.VIEWER)).status_code == 200
    assert api.get(figures).status_code == 401
    assert store.people.log_in("mira", "a hash", digest("cookie"), NOW + timedelta(days=9999))
    cookie = {"cookie": "qcnode_session=cookie"}
    assert api.get("/series", headers=cookie).status_code == 200, "a browser that is logged in"
    assert api.post("/series/1.2.3/opinions", json=word, headers=cookie).status_code == 401, (
        "another site sends it along"
    )
    assert api.post("/series/1.2.3/opinions", json=word, headers=bearer(Role.VIEWER)).status_code == 403
    store.tokens.remove("t.admin", NOW)
    assert api.post("/series/1.2.3/opinions", json=word, headers=bearer(Role.ADMIN)).status_code == 401
    found = store.overview.detail("1.2.3")
    assert found is not None
    assert found.assessments[0].opinions == []


def test_the_state_of_the_node_counts_what_the_ledger_counts(store: Store, api: httpx.Client) -> None:
    series(store, "1.2.3", graded(Motion=2, Noise=1), destination="pacs")
    (first, *_) = store.deliveries.due("pacs", NOW + timedelta(minutes=1))
    store.deliveries.mark_dead(first.id, "It does not take this.", NOW)
    found = api.get("/system").json()
    assert found["series"]["assessed"] == found["verdicts"]["rescan"] == found["dead"] == 1
    assert found["receivers"] == [
        {
            "name": "pacs",
            "alert": False,
            "ae_title": None,
            "address": None,
            "tls": False,
            "waiting": 2,
            "sent": 0,
            "dead": 1,
        }
    ]
    (letter,) = found["dead_letters"]
    assert (letter["series_uid"], letter["count"], letter["error"]) == ("1.2.3", 1, "It does not take this.")
    assert not found["ready"]
    assert "qcnode serve" in found["faults"][0]


def test_its_description_names_every_address_and_needs_no_token(store: Store, api: httpx.Client) -> None:
    store.people.add("mira", Role.ADMIN, "a hash", NOW)
    described = api.get("/openapi.json").json()
    assert set(described["paths"]) >= {"/series", "/series/{uid}", "/series/{uid}/opinions", "/system"}
    assert described["servers"] == [{"url": "/api/v1"}]
    assert api.get("/docs").status_code == 404, "it would load scripts from elsewhere"
    for path in described["paths"].values():
        for method in path.values():
            assert method["security"], "each address says that it takes a token"
            assert method["summary"]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_meets_a_server_s_error_and_each_answer_is_as_described(
    mode: GenerationMode, store: Store, api: httpx.Client
) -> None:
    for number, assessment in enumerate((graded(), graded(Zipper=1), graded(Motion=2), ungraded())):
        series(store, f"1.2.{number}", assessment, destination="pacs")
    arrived(store, 9, calling_ae=HOSTILE)
    described = openapi.from_url(str(api.base_url.join("openapi.json")), timeout=60)
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) >= 5
    for operation in operations:

        @given(case=operation.as_strategy(mode))
        @hypothesis_settings(
            max_examples=8,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def attempt(case: schemathesis.Case) -> None:
            checks = [not_a_server_error, content_type_conformance, response_schema_conformance]
            case.call_and_validate(checks=checks, headers=bearer(Role.TECHNOLOGIST), timeout=60)
            if mode is GenerationMode.POSITIVE and "uid" in case.path_parameters:
                case.path_parameters["uid"] = "1.2.2"  # one that is there
                case.call_and_validate(checks=checks, headers=bearer(Role.TECHNOLOGIST), timeout=60)

        attempt()
