"""Passwords, kept as Argon2id hashes (RFC 9106) alone, and tokens, kept as digests."""

from __future__ import annotations

import hashlib

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from qcnode.errors import ConfigError

SHORTEST, LONGEST = 10, 256  # characters; the upper bound is for what a stranger may have us hash

_hasher = PasswordHasher()  # RFC 9106's second choice: 64 MiB, three passes, four lanes
_NOBODY = _hasher.hash("the password of nobody")


def hashed(password: str) -> str:
    """The hash to keep, with a salt of its own; ConfigError for a password that is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ConfigError(f"A password has {SHORTEST} to {LONGEST} characters; choose another.")
    return _hasher.hash(password)


def is_right(password: str, kept: str | None) -> bool:
    """Whether the password is the one of this hash; None, for an unknown name, takes as long and is never right."""
    try:
        _hasher.verify(kept or _NOBODY, password if len(password) <= LONGEST else "")
    except (VerificationError, InvalidHashError):
        return False
    return kept is not None


def digest(token: str) -> str:
    """What is kept of a token of 256 random bits: nobody tries all of those, so it needs no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()
