"""Which scanner a series is from: its sender, and the device's serial number where the header has one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """A column more; of earlier series only the sender is known. Added in place, so that the triggers stay."""
    op.add_column("series", sa.Column("scanner", sa.String(96), nullable=False, server_default=""))
    op.execute("UPDATE series SET scanner = calling_ae")
    op.create_index("ix_series_scanner_last_received_at", "series", ["scanner", "last_received_at"])
    # Most grades are 0; the page Scanners counts the others.
    flawed = sa.text("severity > 0")
    columns = ["assessment_id", "artifact"]
    op.create_index("ix_score_assessment_id_artifact", "score", columns, sqlite_where=flawed, postgresql_where=flawed)
