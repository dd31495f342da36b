"""The ledger's tables through the versions; `upgrade` brings a ledger of any earlier one up to date."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine

from qcnode.errors import ConfigError


def upgrade(engine: Engine) -> None:
    """Bring the tables to the newest revision, in one transaction; ConfigError for a ledger of a later version."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise ConfigError("The ledger was written by a later version of qcnode; install that version.") from error
