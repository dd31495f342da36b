"""What a person asks the node to do with a series: grade it again, or tell the archives that it is rejected."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import RedirectResponse

from qcnode.clock import utc_now
from qcnode.config import Destination
from qcnode.delivery.outbox import deliveries
from qcnode.errors import PermanentError
from qcnode.intake.spool import instance_path, write_durably
from qcnode.ledger.assessments import assessment_of
from qcnode.ledger.models import AssessmentRow, Series
from qcnode.ledger.records import NewDocument
from qcnode.ledger.store import Store
from qcnode.web.aside import Aside, rejection_of
from qcnode.web.auth import Seen, Visitor
from qcnode.web.forms import UID, Fields, Refused
from qcnode.web.images import in_spool
from qcnode.web.login import SEE_OTHER


def add_requests(
    app: FastAPI, store: Store, folder: Path, aside: Aside, destinations: Sequence[Destination], *, may_reject: bool
) -> None:
    """The addresses of both; may_reject: whether this site lets its technologists reject images."""

    turn = threading.Lock()  # one rejection at a time: a second one must not write over the first one's file

    def made(series: Series, row: AssessmentRow, by: str, now: datetime) -> tuple[NewDocument, list[str]]:
        """The key object, on disk, and who gets it: whoever would get this series' recall flag."""
        to = [name for _, name in deliveries(row.decision, {"flag"}, series.calling_ae, destinations, {})]
        if not to:
            raise PermanentError("No destination takes flags, so nobody would learn of it; add one, or reject there.")
        uid = series.series_instance_uid
        instances = [instance_path(folder, uid, sop).read_bytes() for sop in in_spool(series)]
        key_object = aside.call(rejection_of, instances, assessment_of(row), row.revision, now, by)
        path = Path("documents") / f"{key_object.sop_instance_uid}.dcm"
        write_durably(folder / path, key_object.data)
        kind, sop_class = key_object.kind, key_object.sop_class_uid
        return NewDocument(kind, sop_class, key_object.sop_instance_uid, path=str(path)), to

    @app.post("/series/{uid}/again")
    def again(uid: UID, visitor: Seen, fields: Fields) -> Response:
        """Have a finished series graded once more, as a new revision."""
        by, revision = _speaker(visitor), _revision(fields)
        try:
            store.assess_again(uid, revision, by, utc_now())
        except PermanentError as error:
            raise Refused(409, str(error)) from error
        return RedirectResponse(f"/series/{uid}", SEE_OTHER)

    @app.post("/series/{uid}/rejected")
    def rejected(uid: UID, visitor: Seen, fields: Fields) -> Response:
        """Send the archives a key object 113001, Rejected for Quality Reasons, in this person's name."""
        by, revision, now = _speaker(visitor), _revision(fields), utc_now()
        if not may_reject:
            raise Refused(403, "This site does not let the page reject images; [web] rejection in its configuration.")
        with turn:
            series = store.overview.detail(uid)
            row = series.latest if series is not None else None
            if series is None or row is None or row.revision != revision:
                raise Refused(409, "This is not the latest verdict on the series; look at its page again.")
            if row.rejected_by:
                raise Refused(409, f"{row.rejected_by} has rejected these images already.")
            try:
                document, to = made(series, row, by, now)
                store.opinions.reject(uid, revision, document, to, by, now)
            except FileNotFoundError as error:
                raise Refused(409, "The images are not in the spool any more; reject them at the archive.") from error
            except PermanentError as error:
                raise Refused(409, str(error)) from error
        return RedirectResponse(f"/series/{uid}#said", SEE_OTHER)


def _speaker(visitor: Visitor) -> str:
    if visitor.person is None or not visitor.may_speak:
        raise Refused(403, "Your account may look, but not ask for anything; ask for the role technologist.")
    return visitor.person.name


def _revision(fields: dict[str, str]) -> int:
    try:
        return int(fields.get("revision", ""))
    except ValueError as error:
        raise Refused(400, "The form cannot be read; open the page again and repeat.") from error
