"""Which slices carry a grade."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """A column more; nobody looked for the slices of earlier grades."""
    op.add_column("score", sa.Column("slices", sa.JSON))
