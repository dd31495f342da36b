"""Messages to people, by Apprise: a webhook, a mail, a chat. None carries patient data."""

from __future__ import annotations

from datetime import datetime

import apprise

from qcnode.artifacts import Plane
from qcnode.errors import PermanentError, TransientError
from qcnode.verdict import Decision, Verdict

_HEADLINES = {
    Decision.ACCEPT: "Scan accepted",
    Decision.REVIEW: "Look at this scan",
    Decision.RESCAN: "Repeat this scan",
    Decision.NOT_ASSESSABLE: "Scan not assessable",
}
UID_DIGITS = 8  # enough to find the series on the page, too few to tell whose it is


def message(series_uid: str, verdict: Verdict, plane: Plane | None, at: datetime) -> tuple[str, str]:
    """Title and body of an alert: the verdict, the plane, the time, the reasons, the end of the series' UID."""
    title = _HEADLINES[verdict.decision] + (f" ({plane})" if plane else "")
    body = "\n".join([*verdict.reasons, f"Series …{series_uid[-UID_DIGITS:]}, {at:%Y-%m-%d %H:%M %Z}".rstrip()])
    return title, body


def recognised(url: str) -> bool:
    """Whether Apprise knows what to do with the URL."""
    return apprise.Apprise.instantiate(url, suppress_exceptions=True) is not None


def notify(url: str, title: str, body: str) -> None:
    """Send one message; TransientError when it did not go out, PermanentError for what is no Apprise URL.

    No error names the URL, which may hold a password.
    """
    service = apprise.Apprise()
    if not service.add(url):
        raise PermanentError("The alert's url is none that Apprise knows; mend it in [[alerts]].")
    if not service.notify(title=title, body=body):
        raise TransientError("The alert did not go out; check that its url can be reached and its password is right.")
