"""`qcnode export`: what technologists graded goes back into training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track
from rich.text import Text

from qcnode.accounts import ConfigOption
from qcnode.config import load
from qcnode.console import console
from qcnode.export.choice import Only

if TYPE_CHECKING:
    from qcnode.ledger.ratings import Rated


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or that of an earlier export.")],
    only: Annotated[
        Only,
        typer.Option(help="rated: that people confirmed or corrected; all: the others too, as images without labels."),
    ] = Only.RATED,
    config: ConfigOption = None,
) -> None:
    """Write graded scans, without their patients, as a folder for `python -m train fit --data DIR`."""
    from qcnode.export import work

    out = console()

    def following(scans: list[Rated]) -> Iterable[Rated]:
        return track(scans, "Exporting", console=out, transient=True, disable=not out.is_terminal)

    done = work.export(load(config), folder, only, following)
    scans = "1 scan" if done.scans == 1 else f"{done.scans} scans"
    out.print(f"{folder} holds {scans}: {done.labelled} with labels, {done.added} new.", soft_wrap=True)
    if done.gone:
        gone = f"{done.gone} more were graded, but retention has taken their images; export more often."
        out.print(gone, soft_wrap=True)
    if done.refused:
        out.print(f"{done.refused} more cannot be exported; the log above says why.", soft_wrap=True)
    faces = "Faces are NOT removed: a face can be rendered from these images. Treat them as patient data."
    out.print(Text(faces, style="bold yellow"), soft_wrap=True)
