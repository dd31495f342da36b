"""Deliveries of received images, a pause before a series' next attempt, and verdicts that are quickly counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

UID = sa.String(64)


def upgrade() -> None:
    """Each delivery says itself what it is of; those that are there are all of documents."""
    op.create_index("ix_assessment_decision", "assessment", ["decision"])
    op.add_column("series", sa.Column("not_before", sa.DateTime(timezone=True)))
    op.add_column("delivery", sa.Column("series_uid", UID))
    op.add_column("delivery", sa.Column("kind", sa.String(16)))
    op.add_column("delivery", sa.Column("sop_instance_uid", UID))
    op.execute(
        "UPDATE delivery SET kind = (SELECT kind FROM document WHERE document.id = delivery.document_id), "
        "series_uid = (SELECT series_uid FROM document JOIN assessment ON assessment.id = document.assessment_id "
        "WHERE document.id = delivery.document_id)"
    )
    with op.batch_alter_table("delivery") as delivery:
        delivery.alter_column("series_uid", existing_type=UID, nullable=False)
        delivery.alter_column("kind", existing_type=sa.String(16), nullable=False)
        delivery.alter_column("document_id", existing_type=sa.Integer, nullable=True)
        delivery.create_foreign_key(
            "fk_delivery_series_uid_sop_instance_uid",
            "instance",
            ["series_uid", "sop_instance_uid"],
            ["series_uid", "sop_instance_uid"],
        )
        delivery.create_unique_constraint(
            "uq_delivery_series_uid_sop_instance_uid_destination", ["series_uid", "sop_instance_uid", "destination"]
        )
        delivery.drop_index("ix_delivery_state_destination_due_at")
        delivery.create_index("ix_delivery_state_destination_kind_due_at", ["state", "destination", "kind", "due_at"])
