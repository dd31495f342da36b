"""Alerts: what they say, what they never say, and that they go out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from delivery_peers import webhook

from qcnode.artifacts import Plane
from qcnode.delivery import notify
from qcnode.errors import PermanentError, TransientError
from qcnode.verdict import Decision, Verdict, not_assessable

AT = datetime(2025, 3, 1, 9, 5, tzinfo=UTC)
UID = "1.2.826.0.1.3680043.8.498.12345678901234567890"


# Apprise imports a module on its way that Python 3.11 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def test_a_message_names_verdict_plane_reasons_and_time() -> None:
    verdict = Verdict(Decision.RESCAN, ("Severe motion. Repeat this scan; settle the child first.", "Moderate noise."))
    title, body = notify.message(UID, verdict, Plane.CORONAL, AT)
    assert title == "Repeat this scan (coronal)"
    assert body.splitlines() == [*verdict.reasons, "Series …34567890, 2025-03-01 09:05 UTC"]


@pytest.mark.parametrize("decision", list(Decision))
def test_each_decision_has_its_headline_and_none_the_whole_uid(decision: Decision) -> None:
    title, body = notify.message(UID, Verdict(decision, ()), None, AT)
    assert title
    assert "(" not in title
    assert UID not in body


def test_a_message_reaches_the_webhook() -> None:
    with webhook() as (url, came):
        notify.notify(url, *notify.message(UID, not_assessable("The volume is empty."), None, AT))
    assert [(one["title"], str(one["message"]).splitlines()[0]) for one in came] == [
        ("Scan not assessable", "The volume is empty.")
    ]


def test_an_answer_other_than_success_is_transient() -> None:
    with webhook(status=503) as (url, came), pytest.raises(TransientError):
        notify.notify(url, "title", "body")
    assert len(came) == 1


def test_nobody_there_is_transient_and_the_error_hides_the_url() -> None:
    with webhook() as (url, _):
        pass
    with pytest.raises(TransientError) as caught:
        notify.notify(url.replace("json://", "json://user:secret@"), "title", "body")
    assert "secret" not in str(caught.value)


def test_what_is_no_url_is_permanent() -> None:
    assert not notify.recognised("carrier-pigeon://loft")
    assert notify.recognised("json://127.0.0.1:9000/rescan")
    with pytest.raises(PermanentError, match="alerts"):
        notify.notify("carrier-pigeon://loft", "title", "body")
