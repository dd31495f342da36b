"""The people at the page: what each may do, and what they can say of a verdict."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What an account is for; each may do what the one before it may."""

    VIEWER = "viewer"  # sees everything, says nothing
    TECHNOLOGIST = "technologist"  # says what she thinks of a verdict
    ADMIN = "admin"  # runs the node

    @property
    def may_speak(self) -> bool:
        """Whether this person's word on a verdict is taken."""
        return self is not Role.VIEWER


class Word(StrEnum):
    """What a person says of the verdict on one revision; it never changes what the machine said."""

    ACKNOWLEDGED = "acknowledged"  # I have seen it, and it is in my hands
    AGREED = "agreed"  # every grade is as I would give it
    CORRECTED = "corrected"  # this artifact's grade is another
    REJECTED = "rejected"  # nobody shall read these images: a key object says so to the archives
