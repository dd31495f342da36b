"""People: their accounts, who is logged in, and what they say of verdicts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NAME = sa.String(40)
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Three tables more."""
    op.create_table(
        "account",
        sa.Column("name", NAME, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("added_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_account"),
    )
    op.create_table(
        "login",
        sa.Column("token_sha256", sa.String(64), nullable=False),
        sa.Column("account_name", NAME, nullable=False),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("ends_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["account_name"], ["account.name"], name="fk_login_account_name"),
        sa.PrimaryKeyConstraint("token_sha256", name="pk_login"),
    )
    op.create_index("ix_login_account_name", "login", ["account_name"])
    op.create_table(
        "opinion",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("assessment_id", sa.Integer, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("by", NAME, nullable=False),
        sa.Column("word", sa.String(16), nullable=False),
        sa.Column("artifact", sa.String(16)),
        sa.Column("severity", sa.Integer),
        sa.ForeignKeyConstraint(["assessment_id"], ["assessment.id"], name="fk_opinion_assessment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_opinion"),
    )
    op.create_index("ix_opinion_assessment_id", "opinion", ["assessment_id"])
