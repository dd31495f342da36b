"""Messages to people, by Apprise: a webhook, a mail, a chat. None carries patient data, unless the site asks for it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import apprise
from pydicom import dcmread

from qcnode.config import Alerting
from qcnode.errors import PermanentError, TransientError
from qcnode.imaging.stack import UNREADABLE
from qcnode.intake.spool import instance_path
from qcnode.wording import BODY, TITLE, Occasion, rendered

log = logging.getLogger("qcnode.delivery")


def message(alerting: Alerting, occasion: Occasion) -> tuple[str, str]:
    """Title, on one line, and body of an alert, by the site's templates; by the default ones where those fail."""
    try:
        title, body = rendered(alerting.title, occasion), rendered(alerting.body, occasion)
    except ValueError as error:  # it is checked when the configuration is read, but not for each occasion
        log.error("template_failed series=%s why=%r", occasion.series_uid, str(error))
        plain = replace(occasion, accession_number="")
        title, body = rendered(TITLE, plain), rendered(BODY, plain)
    return " ".join(title.split()), body


def accession_number(alerting: Alerting, folder: Path, series_uid: str, sop_instance_uids: Sequence[str]) -> str:
    """The AccessionNumber of a spooled series, where the site wants it in its alerts; empty where it does not."""
    if not alerting.accession_number or not sop_instance_uids:
        return ""
    try:
        data = instance_path(folder, series_uid, sop_instance_uids[0]).read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            header = dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=["AccessionNumber"])
            return str(header.get("AccessionNumber") or "")
    except UNREADABLE:  # OSError among them: retention has it
        return ""


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
