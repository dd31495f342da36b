"""`qcnode shadow compare` and `qcnode shadow promote`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from qcnode.accounts import ConfigOption
from qcnode.config import load
from qcnode.console import console

if TYPE_CHECKING:
    from qcnode.comparison import Agreement

shadow = typer.Typer(help="Weights on trial: they grade beside the active ones, unreported.", no_args_is_help=True)


@shadow.command()
def compare(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Show how far both agree on the same scans, and how far people agree with each."""
    from qcnode.comparison import rows, to_json, verdicts
    from qcnode.ledger.store import Store

    with Store.open(load(config).state) as store:
        compared = store.shadows.compared()
    if as_json:
        print(json.dumps(to_json(compared) if compared else None, indent=2))
        return
    out = console()
    if compared is None:
        out.print(
            "Nothing was graded in shadow yet; set shadow in [assessing], and start the node.",
            soft_wrap=True,
            markup=False,
        )
        return
    scans = "1 scan" if compared.scans == 1 else f"{compared.scans} scans"
    out.print(f"Active {compared.active}, in shadow {compared.shadow}: {scans}.", soft_wrap=True)
    if compared.ungraded:
        out.print(f"{compared.ungraded} more could not be graded in shadow.", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("artifact", no_wrap=True)
    for heading in ("same", "kappa", "0→0 1 2", "1→0 1 2", "2→0 1 2", "rated", "active", "shadow"):
        table.add_column(heading, justify="right")
    for row in rows(compared):
        cells = [" ".join(map(str, line)) for line in row.ensembles.table]
        people = [str(row.active.scans), _share(row.active), _share(row.shadow)]
        table.add_row(row.artifact.value, _share(row.ensembles), _kappa(row.ensembles), *cells, *people)
    out.print(table)
    for one, counts in verdicts(compared):
        if sum(counts):
            accepted, reviewed, repeated = counts
            line = f"Of {sum(counts)} × {one.value}: accept {accepted}, review {reviewed}, rescan {repeated}."
            out.print(line, soft_wrap=True)
    out.print(
        "1→0 1 2: of the active severity 1, how many are 0, 1 and 2 in shadow. active, shadow: the share of the rated "
        "scans to which people give the same grade. People saw the active grade first, which favours it.",
        style="dim",
        soft_wrap=True,
    )


@shadow.command()
def promote(config: ConfigOption = None) -> None:
    """Make the weights on trial the active ones, in the configuration file."""
    from qcnode.shadow.promotion import promote as promoted

    done = promoted(config)
    console().print(
        f"{done.file} names {done.now} now, in place of {done.before}. Restart the node to grade with them; "
        "until then it goes on as before.",
        soft_wrap=True,
    )


def _share(agreement: Agreement) -> str:
    return "" if agreement.same is None else f"{agreement.same:.0%}"


def _kappa(agreement: Agreement) -> str:
    return "" if agreement.kappa is None else f"{agreement.kappa:.2f}"
