"""`qcnode user`: the accounts of the page, kept by whoever may run commands on the node's machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from qcnode.clock import utc_now
from qcnode.config import load
from qcnode.console import console
from qcnode.errors import ConfigError
from qcnode.people import Role, plain_name

users = typer.Typer(help="The people who may log in at the page.", no_args_is_help=True)
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The configuration; else QCNODE_CONFIG names it, else the defaults."),
]
NameArgument = Annotated[str, typer.Argument(help="What the person logs in with; capitals make no difference.")]


@users.command()
def add(
    name: NameArgument,
    role: Annotated[
        Role,
        typer.Option(
            help="A viewer sees; a technologist says what she thinks of verdicts; an admin runs the node too."
        ),
    ] = Role.TECHNOLOGIST,
    config: ConfigOption = None,
) -> None:
    """Add a person; asks for the password, or reads it as one line where the input is no terminal."""
    from qcnode.ledger.store import Store
    from qcnode.passwords import hashed

    settings = load(config)
    plain = named(name, "user")
    kept = hashed(_password())
    with Store.open(settings.state) as store:
        store.people.add(plain, role, kept, utc_now())
    console().print(f"Added {plain}, {role.value}. The page asks everybody to log in now.", soft_wrap=True)


@users.command("list")
def show(config: ConfigOption = None) -> None:
    """Show who may log in, and as what."""
    from qcnode.ledger.store import Store

    with Store.open(load(config).state) as store:
        people = store.people.all()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("name", "role", "added (UTC)"):
        table.add_column(heading, no_wrap=True)
    for person in people:
        table.add_row(person.name, person.role.value, f"{person.added_at:%Y-%m-%d %H:%M}")
    console().print(table if people else "There are no users; the page is for reading only.")


@users.command()
def password(name: NameArgument, config: ConfigOption = None) -> None:
    """Give a person another password; asks for it as `add` does, and ends that person's logins."""
    from qcnode.ledger.store import Store
    from qcnode.passwords import hashed

    plain = named(name, "user")
    kept = hashed(_password())
    with Store.open(load(config).state) as store:
        store.people.set_password(plain, kept, utc_now())
    console().print(f"{plain} has another password, and logs in with it now.", soft_wrap=True)


@users.command()
def role(
    name: NameArgument,
    role: Annotated[Role, typer.Argument(help="viewer, technologist or admin.")],
    config: ConfigOption = None,
) -> None:
    """Give a person another role, at once; logins go on."""
    from qcnode.ledger.store import Store

    plain = named(name, "user")
    with Store.open(load(config).state) as store:
        store.people.set_role(plain, role, utc_now())
    console().print(f"{plain} is {role.value} now.", soft_wrap=True)


@users.command()
def remove(name: NameArgument, config: ConfigOption = None) -> None:
    """Remove a person; logins end at once, and what the person said of verdicts stays."""
    from qcnode.ledger.store import Store

    plain = named(name, "user")
    with Store.open(load(config).state) as store:
        store.people.remove(plain, utc_now())
    console().print(f"Removed {plain}.", soft_wrap=True)


def named(name: str, of: str) -> str:
    """The name as the ledger keeps it; ConfigError for what is no name. of: what it names."""
    plain = plain_name(name)
    if plain is None:
        raise ConfigError(f"A {of}'s name is 1 to 40 letters, digits, dots, dashes, underscores or @; choose another.")
    return plain


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")
