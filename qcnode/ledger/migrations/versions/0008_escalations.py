"""Verdicts that call somebody else unless they are answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """One table more."""
    op.create_table(
        "escalation",
        sa.Column("assessment_id", sa.Integer, nullable=False),
        sa.Column("destination", sa.String(40), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["assessment_id"], ["assessment.id"], name="fk_escalation_assessment_id"),
        sa.PrimaryKeyConstraint("assessment_id", "destination", name="pk_escalation"),
    )
