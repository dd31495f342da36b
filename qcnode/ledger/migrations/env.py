"""What Alembic runs for each command: the migrations, on the connection that `upgrade` handed over, or as SQL."""

from alembic import context

from qcnode.ledger.models import Row

context.configure(
    connection=context.config.attributes.get("connection"),
    dialect_name=context.config.attributes.get("dialect_name"),
    target_metadata=Row.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
