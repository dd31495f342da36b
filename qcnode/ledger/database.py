"""The ledger's connection: how SQLite is opened, and what a transaction means."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, false, update
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from qcnode.errors import ConfigError, PermanentError, TransientError
from qcnode.ledger import migrations
from qcnode.ledger.models import Event, Login
from qcnode.ledger.turns import Turns

log = logging.getLogger("qcnode.ledger")

BUSY_MILLISECONDS = 30_000  # how long a writer waits for the one before it
_PRAGMAS = (f"busy_timeout = {BUSY_MILLISECONDS}", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")


def connect(url: str) -> Engine:
    """The ledger's engine, its tables at the newest revision; ConfigError when it cannot be opened."""
    try:
        engine = create_engine(url)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError("state.ledger_url is no database URL with an installed driver; mend it.") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        migrations.upgrade(engine.execution_options(writes=True))
    except DBAPIError as error:
        engine.dispose()
        raise ConfigError(
            f"The ledger {engine.url.render_as_string()} cannot be opened; check that it is there and may be written, "
            "and that its disk has room."
        ) from error
    except ConfigError:
        engine.dispose()
        raise
    return engine


def _prepare_sqlite(connection: Any, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver guesses
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock before it reads: what it compares cannot change until it sets.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class Database:
    """Reading and writing transactions on one engine; usable from any thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._turns = Turns() if engine.dialect.name == "sqlite" else None  # PostgreSQL queues for rows by itself
        self._reader = sessionmaker(engine, expire_on_commit=False)
        self._writer = sessionmaker(engine.execution_options(writes=True), expire_on_commit=False)

    def copy_to(self, file: Path) -> None:
        """Copy an SQLite database by its online backup: one read transaction, so writers go on."""
        connection = self.engine.raw_connection()
        try:
            with _translated(), closing(sqlite3.connect(file)) as copy:
                connection.driver_connection.backup(copy)  # type: ignore[union-attr]
        except sqlite3.OperationalError as error:
            raise TransientError("The ledger is locked or out of reach; try again.") from error
        finally:
            connection.close()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session on one consistent view; TransientError when the database cannot be reached."""
        with _translated(), self._reader() as session:
            yield session

    @contextmanager
    def writing(self, *, patient: bool = False) -> Iterator[Session]:
        """A transaction, committed at the end; what it recorded is logged once it is durable.

        Writers of this process take turns, those that are `patient` after all others.
        """
        with _translated(), self._writer() as session:
            with self._turn(patient), session.begin():
                session.connection()  # begins it: the turn and the database's lock are held equally long
                yield session
            for line in session.info.get("lines", ()):
                log.info("%s", line)

    def check_writable(self) -> None:
        """Take and give back the right to write; TransientError where it does not come or the disk does not let us."""
        with self.writing() as session:
            session.execute(update(Login).where(false()).values(ends_at=Login.ends_at))

    def _turn(self, patient: bool) -> AbstractContextManager[None]:
        if self._turns is None:
            return nullcontext()
        return self._turns.turn(patient=patient, seconds=BUSY_MILLISECONDS / 1000)


def record(
    session: Session,
    kind: str,
    series_uid: str | None,
    detail: dict[str, Any],
    now: datetime,
    people: dict[str, str] | None = None,
) -> None:
    """Add an event to the table and, once committed, its line to the log.

    people: more of the detail, of which the log gets nothing: the table names people, the log does not.
    """
    session.add(Event(at=now, kind=kind, series_uid=series_uid, detail=detail | (people or {})))
    words = [kind, *([f"series={series_uid}"] if series_uid else []), *(f"{k}={_word(v)}" for k, v in detail.items())]
    session.info.setdefault("lines", []).append(" ".join(words))


def _word(value: Any) -> str:
    text = str(value)
    return repr(text) if " " in text or not text else text


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, TimeoutError) as error:
        raise TransientError("The ledger is locked or out of reach; try again.") from error
    except (DBAPIError, OverflowError) as error:  # the latter for a number beyond 64 bits
        raise PermanentError(f"The ledger refused a value ({type(error).__name__}); see what was sent.") from error
