"""Alerts: what they say, what they never say, and that they go out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from delivery_peers import webhook
from reporting_cases import as_bytes, swoop

from qcnode.artifacts import Plane
from qcnode.config import Alerting
from qcnode.delivery import notify
from qcnode.errors import PermanentError, TransientError
from qcnode.intake.spool import Spool
from qcnode.verdict import Decision, Verdict, not_assessable
from qcnode.wording import Occasion

AT = datetime(2025, 3, 1, 9, 5, tzinfo=UTC)
UID = "1.2.826.0.1.3680043.8.498.12345678901234567890"


# Apprise imports a module on its way that Python 3.11 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


def occasion(verdict: Verdict) -> Occasion:
    return Occasion(UID, verdict, Plane.CORONAL, AT, accession_number="ACC-1")


def test_a_template_that_fails_on_an_occasion_gives_way_to_the_default_without_the_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fails_without_reasons = Alerting(body="{{ reasons[0] }} {{ accession_number }}")
    title, body = notify.message(fails_without_reasons, occasion(Verdict(Decision.RESCAN, ())))
    assert title == "Repeat this scan (coronal)"
    assert body == "Series …34567890, 2025-03-01 09:05 UTC"
    assert "template_failed" in caplog.text
    assert "ACC-1" not in caplog.text


def test_a_title_is_one_line() -> None:
    assert notify.message(Alerting(title="a\nb"), occasion(not_assessable("Blank.")))[0] == "a b"


def test_the_accession_number_is_read_only_where_the_site_wants_it(tmp_path: Path) -> None:
    dataset = swoop()
    dataset.AccessionNumber = "ACC-1"
    uid, sop = str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID)
    Spool(tmp_path).put(as_bytes(dataset)[0], uid, sop)
    wanted = Alerting(accession_number=True)
    assert notify.accession_number(Alerting(), tmp_path, uid, [sop]) == ""
    assert notify.accession_number(wanted, tmp_path, uid, [sop]) == "ACC-1"
    assert notify.accession_number(wanted, tmp_path, uid, []) == ""
    Spool(tmp_path).remove(uid)
    assert notify.accession_number(wanted, tmp_path, uid, [sop]) == ""


def test_a_message_reaches_the_webhook() -> None:
    with webhook() as (url, came):
        notify.notify(url, *notify.message(Alerting(), occasion(not_assessable("The volume is empty."))))
    assert [(one["title"], str(one["message"]).splitlines()[0]) for one in came] == [
        ("Scan not assessable (coronal)", "The volume is empty.")
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
