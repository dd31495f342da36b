"""`qcnode token`: what other programs show to use the interface under /api/v1."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer
from rich.table import Table

from qcnode.accounts import ConfigOption, named
from qcnode.clock import utc_now
from qcnode.config import load
from qcnode.console import console
from qcnode.people import Role

tokens = typer.Typer(help="What other programs show to use the interface under /api/v1.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="What the token is for; it stands where a person's name would.")]


@tokens.command()
def add(
    name: NameArgument,
    role: Annotated[
        Role,
        typer.Option(help="With a viewer's token a program reads; with a technologist's it says words on verdicts."),
    ] = Role.VIEWER,
    config: ConfigOption = None,
) -> None:
    """Make a token and print it, once: the ledger keeps its digest alone."""
    from qcnode.ledger.store import Store
    from qcnode.passwords import digest

    plain, token = named(name, "token"), f"qcnode_{secrets.token_urlsafe(32)}"
    with Store.open(load(config).state) as store:
        store.tokens.add(plain, role, digest(token), utc_now())
    console(stderr=True).print(f"Added {plain}, {role.value}. Keep this token; it is not shown again:", soft_wrap=True)
    print(token)


@tokens.command("list")
def show(config: ConfigOption = None) -> None:
    """Show which tokens there are, and what may be done with them."""
    from qcnode.ledger.store import Store

    with Store.open(load(config).state) as store:
        held = store.tokens.all()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("name", "role", "added (UTC)"):
        table.add_column(heading, no_wrap=True)
    for one in held:
        table.add_row(one.name, one.role.value, f"{one.added_at:%Y-%m-%d %H:%M}")
    console().print(table if held else "There are no tokens.")


@tokens.command()
def remove(name: NameArgument, config: ConfigOption = None) -> None:
    """Remove a token; it opens nothing from then on, and what was said with it stays."""
    from qcnode.ledger.store import Store

    plain = named(name, "token")
    with Store.open(load(config).state) as store:
        store.tokens.remove(plain, utc_now())
    console().print(f"Removed {plain}.", soft_wrap=True)
