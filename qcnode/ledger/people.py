"""Accounts, and who is logged in. Their names are in the ledger and on the page, never in the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from qcnode.errors import ConfigError
from qcnode.ledger.database import Database, record
from qcnode.ledger.models import Account, Login, Token
from qcnode.people import Role

LOGIN_LASTS = timedelta(hours=12)  # a shift


@dataclass(frozen=True)
class Person:
    """Who it is, and what they may do."""

    name: str
    role: Role
    added_at: datetime


class People:
    """The accounts of the page, and their logins; a login is known by the digest of its token."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, role: Role, password_hash: str, now: datetime) -> None:
        """Enter an account; ConfigError when there is one of that name."""
        with self._database.writing() as session:
            if session.get(Account, name) is not None:
                raise ConfigError(f"There is a user {name!r} already; remove it first, or choose another name.")
            if session.get(Token, name) is not None:
                raise ConfigError(
                    f"There is a token {name!r}; choose another name, so that their words are told apart."
                )
            session.add(Account(name=name, role=role, password_hash=password_hash, added_at=now))
            record(session, "user_added", None, {"role": role.value}, now, {"user": name})

    def set_password(self, name: str, password_hash: str, now: datetime) -> None:
        """Give an account another password and end its logins; ConfigError when there is none of that name."""
        with self._database.writing() as session:
            account = _account(session, name)
            account.password_hash = password_hash
            session.execute(delete(Login).where(Login.account_name == name))
            record(session, "user_password", None, {"role": account.role.value}, now, {"user": name})

    def set_role(self, name: str, role: Role, now: datetime) -> None:
        """Give an account another role, its logins too; ConfigError when there is none of that name."""
        with self._database.writing() as session:
            account = _account(session, name)
            record(session, "user_role", None, {"from": account.role.value, "to": role.value}, now, {"user": name})
            account.role = role

    def remove(self, name: str, now: datetime) -> None:
        """Take an account and its logins away, but nothing that it said; ConfigError when there is none."""
        with self._database.writing() as session:
            account = _account(session, name)
            session.execute(delete(Login).where(Login.account_name == name))
            session.delete(account)
            record(session, "user_removed", None, {"role": account.role.value}, now, {"user": name})

    def all(self) -> list[Person]:
        """Everybody who may log in, by name."""
        with self._database.reading() as session:
            accounts = session.scalars(select(Account).order_by(Account.name))
            return [Person(one.name, one.role, one.added_at) for one in accounts]

    def any(self) -> bool:
        """Whether there is an account at all."""
        with self._database.reading() as session:
            return bool(session.scalar(select(exists(select(Account.name)))))

    def password_hash(self, name: str) -> str | None:
        """What the account's password is verified against; None for a name that nobody has."""
        with self._database.reading() as session:
            return session.scalar(select(Account.password_hash).where(Account.name == name))

    def log_in(self, name: str, password_hash: str, token_sha256: str, now: datetime) -> bool:
        """Begin a login; False when the account went, or got another password, while its password was verified."""
        with self._database.writing() as session:
            account = session.get(Account, name, with_for_update=True)
            if account is None or account.password_hash != password_hash:
                return False
            _begin(session, account, token_sha256, now)
            return True

    def let_in(self, name: str, role: Role | None, token_sha256: str, now: datetime) -> bool:
        """Begin a login for whom somebody else has verified; with a role, the account gets it, or is made with it.

        An account that is made here has no password. False where there is no account and no role to make it with, or
        where a token has the name.
        """
        with self._database.writing() as session:
            account = session.get(Account, name, with_for_update=True)
            if account is None:
                if role is None or session.get(Token, name) is not None:
                    return False
                account = Account(name=name, role=role, password_hash="", added_at=now)
                session.add(account)
                record(session, "user_added", None, {"role": role.value}, now, {"user": name})
            elif role not in (None, account.role):
                record(session, "user_role", None, {"from": account.role.value, "to": role.value}, now, {"user": name})
                account.role = role
            session.flush()  # the account before its login
            _begin(session, account, token_sha256, now)
            return True

    def logged_in(self, token_sha256: str, now: datetime) -> Person | None:
        """Who has this token; None when the login ended."""
        with self._database.reading() as session:
            held = select(Account).join(Login, Login.account_name == Account.name)
            account = session.scalar(held.where(Login.token_sha256 == token_sha256, Login.ends_at > now))
            return None if account is None else Person(account.name, account.role, account.added_at)

    def log_out(self, token_sha256: str, now: datetime) -> None:
        """End a login; one that has ended already stays so."""
        with self._database.writing() as session:
            login = session.get(Login, token_sha256)
            if login is not None:
                session.delete(login)
                record(session, "logged_out", None, {}, now, {"by": login.account_name})


def _account(session: Session, name: str) -> Account:
    account = session.get(Account, name, with_for_update=True)
    if account is None:
        raise ConfigError(f"There is no user {name!r}; `qcnode user list` shows those there are.")
    return account


def _begin(session: Session, account: Account, token_sha256: str, now: datetime) -> None:
    session.execute(delete(Login).where(Login.ends_at <= now))
    ends_at = now + LOGIN_LASTS
    session.add(Login(token_sha256=token_sha256, account_name=account.name, began_at=now, ends_at=ends_at))
    record(session, "logged_in", None, {"role": account.role.value}, now, {"by": account.name})
