"""How many rows of each kind there are, kept as they come and go, so that no count reads a table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# What is counted, and by which of its columns; two more may tell deliveries apart.
COUNTED = {
    "instance": ("''", "''", "''"),
    "series": ("{row}state", "''", "''"),
    "assessment": ("{row}decision", "''", "''"),
    "delivery": ("{row}state", "{row}destination", "{row}kind"),
}


def upgrade() -> None:
    """A table that triggers keep where one writes at a time; elsewhere, where they would queue for it, a view."""
    if op.get_context().dialect.name == "sqlite":
        _kept_table()
    else:
        op.execute("CREATE VIEW tally AS " + " UNION ALL ".join(_count(table) for table in COUNTED))
    # What is in the spool is little beside what was: retention and the adoption at start look for it.
    op.create_index(
        "ix_instance_series_uid_sop_instance_uid",
        "instance",
        ["series_uid", "sop_instance_uid"],
        sqlite_where=sa.text("removed_at IS NULL"),
        postgresql_where=sa.text("removed_at IS NULL"),
    )


def _kept_table() -> None:
    op.create_table(
        "tally",
        sa.Column("counted", sa.String(16), nullable=False),
        sa.Column("word", sa.String(16), nullable=False),
        sa.Column("destination", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("counted", "word", "destination", "kind", name="pk_tally"),
    )
    for table, columns in COUNTED.items():
        op.execute(f"INSERT INTO tally {_count(table)}")
        came, went = _change(table, "NEW.", +1), _change(table, "OLD.", -1)
        op.execute(f"CREATE TRIGGER tally_{table}_came AFTER INSERT ON {table} BEGIN {came} END")
        op.execute(f"CREATE TRIGGER tally_{table}_went AFTER DELETE ON {table} BEGIN {went} END")
        if named := [column.format(row="") for column in columns if "{row}" in column]:
            changed = f"AFTER UPDATE OF {', '.join(named)} ON {table}"
            op.execute(f"CREATE TRIGGER tally_{table}_changed {changed} BEGIN {went} {came} END")


def _count(table: str) -> str:
    columns = [column.format(row="") for column in COUNTED[table]]
    named = [column for column in columns if column != "''"]
    grouped = f" GROUP BY {', '.join(named)}" if named else ""
    word, destination, kind = columns
    return (
        f"SELECT '{table}' AS counted, {word} AS word, {destination} AS destination, {kind} AS kind, "  # noqa: S608
        f"count(*) AS rows FROM {table}{grouped}"
    )


def _change(table: str, row: str, by: int) -> str:
    values = ", ".join(column.format(row=row) for column in COUNTED[table])
    return (
        f"INSERT INTO tally VALUES ('{table}', {values}, {by}) "  # noqa: S608
        f"ON CONFLICT (counted, word, destination, kind) DO UPDATE SET rows = rows + {by};"
    )
