"""Other names for patients, scanners and UIDs: the same each time on this node, and of no use without its key."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from datetime import date, timedelta
from pathlib import Path

from qcnode.errors import ConfigError, PermanentError
from qcnode.intake.disk import sync_folder

KEY_FILE = "export.key"  # in the state folder; whoever has it can tell whether a patient they know is in an export
_KEY_BYTES = 32
_MOST_DAYS = 3650  # that a date is shifted by


class Pseudonyms:
    """HMAC-SHA256 under the node's key: without it, not even the list of all patient ids finds one again."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of(cls, state: Path) -> Pseudonyms:
        """Those of the node with this state folder; its key is made at the first export. ConfigError without rights."""
        path = state / KEY_FILE
        try:
            if not path.exists():
                _make_key(path)
            key = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read or made ({error.strerror}); run this as the node's user."
            ) from error
        if len(key) != _KEY_BYTES:
            raise PermanentError(f"{path} is damaged; restore it from a backup, or later exports name patients anew.")
        return cls(key)

    @property
    def fingerprint(self) -> str:
        """Tells one key from another, and nothing else."""
        return self._hex("key", "")

    def subject(self, identity: str) -> str:
        """The patient's other name, as the LISA layout wants it: letters, then a number."""
        return f"QCNODE_{int.from_bytes(self._digest('subject', identity)[:16]) % 10**12:012d}"

    def day(self, identity: str, day: date) -> date:
        """An earlier day, by as many days for all of a patient's, so that what lies between them stays true.

        PS3.15 Section E.3.6, Retain Longitudinal Temporal Information With Modified Dates.
        """
        return day - timedelta(days=1 + int.from_bytes(self._digest("day", identity)[:16]) % _MOST_DAYS)

    def scan(self, series_uid: str, images: int) -> str:
        """What the file name calls a scan."""
        return self._hex("scan", f"{series_uid} {images}")

    def scanner(self, ae_title: str) -> str:
        """What an AE title is called."""
        return self._hex("scanner", ae_title)

    def uid(self, uid: str) -> str:
        """Another UID in its place (PS3.5 Section B.2)."""
        return f"2.25.{int.from_bytes(self._digest('uid', uid)[:16])}"

    def _hex(self, kind: str, text: str) -> str:
        return self._digest(kind, text).hex()[:12]

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.new(self._key, f"{kind}\0{text}".encode(errors="surrogateescape"), hashlib.sha256).digest()


def _make_key(path: Path) -> None:
    """Only its owner may read it; of two that make one at once, the first one's stays."""
    descriptor, name = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)
    except FileExistsError:
        pass
    finally:
        Path(name).unlink()
    sync_folder(path.parent)
