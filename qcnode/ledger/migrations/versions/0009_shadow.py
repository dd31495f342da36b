"""What weights on trial say, beside what was reported."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Two tables more."""
    op.create_table(
        "shadow_assessment",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("assessment_id", sa.Integer, nullable=False),
        sa.Column("ensemble", sa.String(128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decision", sa.String(16)),
        sa.Column("reason", sa.Text),
        sa.ForeignKeyConstraint(["assessment_id"], ["assessment.id"], name="fk_shadow_assessment_assessment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_shadow_assessment"),
        sa.UniqueConstraint("assessment_id", "ensemble", name="uq_shadow_assessment_assessment_id_ensemble"),
    )
    op.create_table(
        "shadow_score",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("shadow_assessment_id", sa.Integer, nullable=False),
        sa.Column("artifact", sa.String(16), nullable=False),
        sa.Column("severity", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("p0", "p1", "p2")),
        sa.ForeignKeyConstraint(
            ["shadow_assessment_id"], ["shadow_assessment.id"], name="fk_shadow_score_shadow_assessment_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_shadow_score"),
        sa.UniqueConstraint("shadow_assessment_id", "artifact", name="uq_shadow_score_shadow_assessment_id_artifact"),
    )
