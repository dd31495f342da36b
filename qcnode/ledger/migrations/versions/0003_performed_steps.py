"""Performed procedure steps of modalities, and the instances that they say each series has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

UID = sa.String(64)
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Two tables more."""
    op.create_table(
        "performed_step",
        sa.Column("sop_instance_uid", UID, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.PrimaryKeyConstraint("sop_instance_uid", name="pk_performed_step"),
    )
    op.create_table(
        "performed_series",
        sa.Column("step_uid", UID, nullable=False),
        sa.Column("series_uid", UID, nullable=False),
        sa.Column("sop_instance_uids", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["step_uid"], ["performed_step.sop_instance_uid"], name="fk_performed_series_step_uid"),
        sa.PrimaryKeyConstraint("step_uid", "series_uid", name="pk_performed_series"),
    )
    op.create_index("ix_performed_series_series_uid", "performed_series", ["series_uid"])
