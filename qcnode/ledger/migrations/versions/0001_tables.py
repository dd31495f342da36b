"""The first tables: series, instances, assessments with scores and documents, deliveries, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

UID = sa.String(64)
WORD = sa.String(16)
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "series",
        sa.Column("series_instance_uid", UID, nullable=False),
        sa.Column("study_instance_uid", UID),
        sa.Column("state", WORD, nullable=False),
        sa.Column("state_since", MOMENT, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("complete_why", sa.Text),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("first_received_at", MOMENT, nullable=False),
        sa.Column("last_received_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("series_instance_uid", name="pk_series"),
    )
    op.create_index("ix_series_last_received_at", "series", ["last_received_at"])
    op.create_index("ix_series_state_state_since", "series", ["state", "state_since"])
    op.create_table(
        "instance",
        sa.Column("series_uid", UID, nullable=False),
        sa.Column("sop_instance_uid", UID, nullable=False),
        sa.Column("sop_class_uid", UID, nullable=False),
        sa.Column("transfer_syntax_uid", UID, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.Column("calling_ae", sa.String(16), nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("removed_at", MOMENT),
        sa.ForeignKeyConstraint(["series_uid"], ["series.series_instance_uid"], name="fk_instance_series_uid"),
        sa.PrimaryKeyConstraint("series_uid", "sop_instance_uid", name="pk_instance"),
    )
    op.create_table(
        "assessment",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("series_uid", UID, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("decision", WORD, nullable=False),
        sa.Column("reasons", sa.JSON, nullable=False),
        sa.Column("plane", WORD),
        sa.Column("ensemble", sa.String(128), nullable=False),
        sa.Column("seconds", sa.JSON, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("predecessor_uid", UID),
        sa.ForeignKeyConstraint(["series_uid"], ["series.series_instance_uid"], name="fk_assessment_series_uid"),
        sa.PrimaryKeyConstraint("id", name="pk_assessment"),
        sa.UniqueConstraint("series_uid", "revision", name="uq_assessment_series_uid_revision"),
    )
    op.create_table(
        "score",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("assessment_id", sa.Integer, nullable=False),
        sa.Column("artifact", WORD, nullable=False),
        sa.Column("severity", sa.Integer, nullable=False),
        sa.Column("p0", sa.Double, nullable=False),
        sa.Column("p1", sa.Double, nullable=False),
        sa.Column("p2", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["assessment_id"], ["assessment.id"], name="fk_score_assessment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_score"),
        sa.UniqueConstraint("assessment_id", "artifact", name="uq_score_assessment_id_artifact"),
    )
    op.create_table(
        "document",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("assessment_id", sa.Integer, nullable=False),
        sa.Column("kind", WORD, nullable=False),
        sa.Column("sop_class_uid", UID),
        sa.Column("sop_instance_uid", UID),
        sa.Column("path", sa.Text),
        sa.Column("title", sa.Text),
        sa.Column("body", sa.Text),
        sa.ForeignKeyConstraint(["assessment_id"], ["assessment.id"], name="fk_document_assessment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_document"),
        sa.UniqueConstraint("sop_instance_uid", name="uq_document_sop_instance_uid"),
    )
    op.create_index("ix_document_assessment_id", "document", ["assessment_id"])
    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("document_id", sa.Integer, nullable=False),
        sa.Column("destination", sa.String(40), nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("refusals", sa.Integer, nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("sent_at", MOMENT),
        sa.Column("error", sa.Text),
        sa.ForeignKeyConstraint(["document_id"], ["document.id"], name="fk_delivery_document_id"),
        sa.PrimaryKeyConstraint("id", name="pk_delivery"),
        sa.UniqueConstraint("document_id", "destination", name="uq_delivery_document_id_destination"),
    )
    op.create_index("ix_delivery_state_destination_due_at", "delivery", ["state", "destination", "due_at"])
    op.create_table(
        "event",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("series_uid", UID),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
    )
    op.create_index("ix_event_series_uid", "event", ["series_uid"])
