"""The migrations make the tables that the models speak of, from any earlier version, on each database."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from qcnode.errors import ConfigError
from qcnode.ledger import migrations
from qcnode.ledger.database import connect
from qcnode.ledger.models import Row
from qcnode.ledger.store import Store


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


def scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(migrations.__file__).parent))


def test_the_migrated_tables_are_those_of_the_models(url: str) -> None:
    engine = connect(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Row.metadata) == []
        names = {name for table in Row.metadata.tables for name in _constraints(connection, table)}
    engine.dispose()
    assert names == {str(c.name) for t in Row.metadata.tables.values() for c in t.constraints}


def _constraints(connection, table: str) -> set[str]:
    inspector = inspect(connection)
    found = [inspector.get_pk_constraint(table), *inspector.get_unique_constraints(table)]
    return {str(c["name"]) for c in [*found, *inspector.get_foreign_keys(table)]}


def test_upgrading_twice_is_upgrading_once(url: str) -> None:
    connect(url).dispose()
    engine = connect(url)
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_heads() == (scripts().get_current_head(),)
    engine.dispose()


def test_deliveries_of_the_first_version_keep_their_way(url: str) -> None:
    """What was due stays due: a delivery learns its series and its kind from its document."""
    plain = create_engine(url)
    with plain.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        at = "2025-03-01 09:00:00.000000"
        for row in (
            f"series VALUES ('1.2.3', '1.2', 'assessed', '{at}', 1, 1, NULL, 'quiet', 'SWOOP', '{at}', '{at}')",
            f"assessment VALUES (1, '1.2.3', 1, 'accept', '[]', NULL, 'e', '{{}}', '{at}', NULL)",
            "document VALUES (1, 1, 'report', '1.2.840', '2.25.1', 'documents/2.25.1.dcm', NULL, NULL)",
            "document VALUES (2, 1, 'alert', NULL, NULL, NULL, 'Repeat', 'Motion')",
            f"delivery VALUES (1, 1, 'pacs', 'pending', 3, 1, '{at}', NULL, 'refused')",
            f"delivery VALUES (2, 2, 'alert-1', 'dead', 8, 8, '{at}', NULL, 'refused')",
        ):
            connection.execute(text(f"INSERT INTO {row}"))
    plain.dispose()
    with Store(url) as store:
        now = datetime(2025, 3, 1, 10, tzinfo=UTC)
        (due,) = store.deliveries.due("pacs", now)
        assert (due.series_uid, due.kind, due.path, due.attempts) == ("1.2.3", "report", "documents/2.25.1.dcm", 3)
        assert store.deliveries.revive(now, "1.2.3") == 1
        (alert,) = store.deliveries.due("alert-1", now)
        assert (alert.kind, alert.title) == ("alert", "Repeat")


def test_grades_of_earlier_versions_know_no_slices(url: str) -> None:
    plain = create_engine(url)
    with plain.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0009")
        at = "2026-03-01 09:00:00.000000"
        for row in (
            "series (series_instance_uid, state, state_since, revision, attempts, calling_ae, scanner,"
            " first_received_at, last_received_at)"
            f" VALUES ('1.2.3', 'assessed', '{at}', 1, 1, 'SWOOP', 'S', '{at}', '{at}')",
            f"assessment VALUES (1, '1.2.3', 1, 'rescan', '[]', NULL, 'e', '{{}}', '{at}', NULL)",
            "score VALUES (1, 1, 'Motion', 2, 0.0, 0.1, 0.9)",
        ):
            connection.execute(text(f"INSERT INTO {row}"))
    plain.dispose()
    with Store(url) as store:
        found = store.overview.detail("1.2.3")
        assert found is not None
        assert found.latest is not None
        assert [score.slices for score in found.latest.scores] == [None]


def test_the_versions_are_one_line() -> None:
    assert len(scripts().get_heads()) == 1
    assert len(scripts().get_bases()) == 1


def test_a_migration_that_breaks_leaves_nothing_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = command.upgrade

    def broken(config: Config, revision: str) -> None:
        upgrade(config, revision)
        raise RuntimeError("power cut")

    monkeypatch.setattr(command, "upgrade", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        connect(url)
    plain = create_engine(url)
    assert inspect(plain).get_table_names() == []
    plain.dispose()
    monkeypatch.undo()
    connect(url).dispose()


def test_a_later_version_s_ledger_is_left_alone(url: str) -> None:
    engine = connect(url)
    with engine.execution_options(writes=True).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ConfigError, match="later version"):
        connect(url)


def test_postgresql_takes_the_same_migrations() -> None:
    script = StringIO()
    config = Config(output_buffer=script)
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["dialect_name"] = "postgresql"
    command.upgrade(config, "head", sql=True)
    assert "at TIMESTAMP WITH TIME ZONE NOT NULL" in script.getvalue()
    made = {name for line in script.getvalue().splitlines() if (name := _made(line))}
    assert made >= set(Row.metadata.tables)


def _made(line: str) -> str | None:
    """The table or view that the statement makes."""
    words = line.split()
    return words[2] if words[:2] in (["CREATE", "TABLE"], ["CREATE", "VIEW"]) else None


def test_starting_beside_another_process_is_harmless(url: str) -> None:
    start = f"from qcnode.ledger.store import Store; Store({url!r}).close()"
    processes = [subprocess.Popen([sys.executable, "-W", "error", "-c", start]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
