"""Alerts: what they say, what they never say, and that they go out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from qcnode.artifacts import Plane
from qcnode.delivery import notify
from qcnode.errors import PermanentError, TransientError
from qcnode.verdict import Decision, Verdict, not_assessable

AT = datetime(2025, 3, 1, 9, 5, tzinfo=UTC)
UID = "1.2.826.0.1.3680043.8.498.12345678901234567890"


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """An HTTP server that keeps what it is sent; gives its Apprise URL and what came."""
    came: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802 - the library's name
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"json://127.0.0.1:{server.server_address[1]}/rescan", came
        finally:
            server.shutdown()
            thread.join()


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
