"""The people at the page: what each may do, and what they can say of a verdict."""

from __future__ import annotations

import re
from enum import StrEnum

_NAME = re.compile(r"[a-z0-9._@-]{1,40}")


def plain_name(text: str) -> str | None:
    """The name as the ledger keeps it, without capitals; None for what is no name."""
    name = text.strip().lower()
    return name if _NAME.fullmatch(name) else None


class Role(StrEnum):
    """What an account is for; each may do what the one before it may."""

    VIEWER = "viewer"  # sees everything, says nothing
    TECHNOLOGIST = "technologist"  # says what she thinks of a verdict
    ADMIN = "admin"  # runs the node

    @property
    def may_speak(self) -> bool:
        """Whether this person's word on a verdict is taken."""
        return self is not Role.VIEWER

    @property
    def may_run(self) -> bool:
        """Whether this person decides what the node does again."""
        return self is Role.ADMIN


class Word(StrEnum):
    """What a person says of the verdict on one revision; it never changes what the machine said."""

    ACKNOWLEDGED = "acknowledged"  # I have seen it, and it is in my hands
    AGREED = "agreed"  # every grade is as I would give it
    CORRECTED = "corrected"  # this artifact's grade is another
    REJECTED = "rejected"  # nobody shall read these images: a key object says so to the archives
