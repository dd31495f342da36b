"""Tokens, by which programs use the interface for programs; the ledger keeps their digests alone."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select

from qcnode.errors import ConfigError
from qcnode.ledger.database import Database, record
from qcnode.ledger.models import Account, Token
from qcnode.ledger.people import Person
from qcnode.people import Role


class Tokens:
    """Who may come without a login; a token's name stands where a person's would, so no account has it too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, role: Role, token_sha256: str, now: datetime) -> None:
        """Enter a token; ConfigError when there is a token or a user of that name."""
        with self._database.writing() as session:
            if session.get(Token, name) is not None or session.get(Account, name) is not None:
                raise ConfigError(f"There is a token or a user {name!r} already; choose another name.")
            session.add(Token(name=name, role=role, token_sha256=token_sha256, added_at=now))
            record(session, "token_added", None, {"role": role.value}, now, {"token": name})

    def remove(self, name: str, now: datetime) -> None:
        """Take a token away, but nothing that was said with it; ConfigError when there is none."""
        with self._database.writing() as session:
            token = session.get(Token, name, with_for_update=True)
            if token is None:
                raise ConfigError(f"There is no token {name!r}; `qcnode token list` shows those there are.")
            session.delete(token)
            record(session, "token_removed", None, {"role": token.role.value}, now, {"token": name})

    def all(self) -> list[Person]:
        """All tokens, by name."""
        with self._database.reading() as session:
            return [
                Person(one.name, one.role, one.added_at) for one in session.scalars(select(Token).order_by(Token.name))
            ]

    def holder(self, token_sha256: str) -> Person | None:
        """Whose token has this digest; None when there is none, or none any more."""
        with self._database.reading() as session:
            token = session.scalar(select(Token).where(Token.token_sha256 == token_sha256))
            return None if token is None else Person(token.name, token.role, token.added_at)
