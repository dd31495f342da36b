"""What the page shows beside a verdict: the scan in three planes, and how noisy it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Two columns more, added in place, so that the triggers stay; earlier verdicts have neither."""
    op.add_column("assessment", sa.Column("noise", sa.Double))
    op.add_column("assessment", sa.Column("planes", sa.Text))
