"""What a person says of a verdict, posted by the forms of a series' page."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.responses import RedirectResponse

from qcnode.artifacts import Artifact, Severity
from qcnode.clock import utc_now
from qcnode.errors import PermanentError
from qcnode.ledger.store import Store
from qcnode.people import Word
from qcnode.web.auth import Seen
from qcnode.web.forms import UID, Fields, Refused
from qcnode.web.login import SEE_OTHER

GRADE = "grade-"  # and the artifact: the name of its field


def add_words(app: FastAPI, store: Store) -> None:
    """The address that takes a word; what the machine said stays as it is."""

    @app.post("/series/{uid}/said")
    def said(uid: UID, visitor: Seen, fields: Fields) -> Response:
        """Store one person's word on the revision that they saw, and show the page again."""
        if visitor.person is None or not visitor.may_speak:
            raise Refused(403, "Your account may look, but not speak of a verdict; ask for the role technologist.")
        by, now = visitor.person.name, utc_now()
        try:
            word, revision, grades = Word(fields.get("word", "")), int(fields.get("revision", "")), _grades(fields)
        except ValueError as error:
            raise Refused(400, "The form cannot be read; open the page again and repeat.") from error
        try:
            match word:
                case Word.ACKNOWLEDGED:
                    store.opinions.acknowledge(uid, revision, by, now)
                case Word.AGREED:
                    store.opinions.agree(uid, revision, by, now)
                case Word.CORRECTED:
                    store.opinions.correct(uid, revision, grades, by, now)
                case Word.REJECTED:
                    raise Refused(400, "Rejecting has a form of its own; open the page again and use that.")
        except PermanentError as error:
            raise Refused(409, str(error)) from error
        return RedirectResponse(f"/series/{uid}#said", SEE_OTHER)


def _grades(fields: dict[str, str]) -> dict[Artifact, Severity]:
    """ValueError for an artifact or a severity that there is not."""
    named = {key.removeprefix(GRADE): value for key, value in fields.items() if key.startswith(GRADE)}
    return {Artifact(name): Severity(int(value)) for name, value in named.items()}
