"""The command line. Exit codes: 0 done, 1 failed, 2 configuration or usage; a traceback only with --debug."""

from __future__ import annotations

import json
import logging
import signal
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from qcnode import __version__
from qcnode.accounts import ConfigOption, users
from qcnode.config import load
from qcnode.console import assessment_panel, console, verdict_line
from qcnode.errors import ConfigError, PermanentError, QcnodeError
from qcnode.export.command import export
from qcnode.shadow.command import shadow
from qcnode.tokens import tokens

if TYPE_CHECKING:
    from qcnode.checks import Finding
    from qcnode.demo import Shown

app = typer.Typer(
    name="qcnode",
    help="Grades low-field brain MRI while the child is still on the table.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(users, name="user")
app.add_typer(tokens, name="token")
app.add_typer(shadow, name="shadow")
app.command()(export)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
DONE, FAILED, USAGE = 0, 1, 2


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Log everything, and show tracebacks.")] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    for library in (
        "pynetdicom",
        "apscheduler",
        "alembic",
        "dicom2nifti",
        "apprise",
        "pydicom",
        "asyncio",
        "multipart",
    ):
        logging.getLogger(library).setLevel(logging.ERROR)  # at lower levels some of them print whole data sets
    if not debug:
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # its failures come back as our own sentences


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the node running until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a whole node on embedded defaults: synthetic series in, verdicts, report and flag out."""
    from qcnode import demo as show
    from qcnode.score import result

    logging.getLogger().setLevel(max(logging.WARNING, logging.getLogger().level))
    out, told = console(), console(stderr=True)
    folder, signalled = Path(tempfile.mkdtemp(prefix="qcnode-demo-")), _stop_signals()
    with show.running(folder, lambda line: told.print(f"[dim]{line}[/]"), signalled) as (node, shown):
        if as_json:
            print(json.dumps([result(one.spooled, one.assessment) for one in shown], indent=2))
        else:
            for one in shown:
                out.print(assessment_panel(f"Sent as {one.made_as}", one.assessment))
                for line in _whereabouts(one, f"{node.web.url}series/" if keep else None):
                    out.print(Text(f"  {line}", style="dim"), soft_wrap=True)  # in one piece, to be copied
                out.print()
        if keep:
            told.print(
                f"The node goes on: AE {node.settings.dicom.ae_title}, port {node.listener.port}. Ctrl-C ends it."
            )
            signalled.wait()
    if not as_json:
        out.print("The node has ended; with --keep it goes on, and its page shows all this.")
        out.print(f"Everything of this demo is kept in {folder}", soft_wrap=True)


@app.command()
def serve(config: ConfigOption = None) -> None:
    """Run the node against a site's scanners and archive, until Ctrl-C or SIGTERM."""
    from qcnode.node import Node

    settings = load(config)
    signalled = _stop_signals()
    node = Node(settings)
    node.start()
    out = console(stderr=True)
    out.print(
        f"qcnode {__version__}: AE {settings.dicom.ae_title}, DICOM port {node.listener.port}, page {node.web.url}, "
        f"state in {settings.state.folder}",
        soft_wrap=True,
    )
    try:
        signalled.wait()
    finally:
        out.print("Stopping: what arrived is kept, what is unfinished goes on at the next start.")
        node.stop()


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("qcnode.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented configuration that shows every key with its default."""
    from qcnode.template import commented_configuration

    if path.exists() and not force:
        raise ConfigError(f"{path} is there already; give another path, or --force to overwrite it.")
    try:
        path.write_text(commented_configuration(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); give another path.") from error
    console().print(f"Wrote {path}. Run it with: qcnode serve --config {path}", soft_wrap=True)


@app.command()
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check configuration, weights, ledger, disk and destinations; exit code 0 when all is well, 1 when not."""
    from qcnode.checks import findings

    found: list[Finding] = []
    out = console()
    with _progress("Checking", out, hidden=as_json) as progress:
        task = progress.add_task("", total=None)
        for finding in findings(load(config)):
            found.append(finding)
            progress.update(task, description=finding.subject)
    if as_json:
        print(json.dumps([{"subject": f.subject, "ok": f.ok, "says": f.says} for f in found], indent=2))
    else:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for f in found:
            table.add_row(Text("✓", "green") if f.ok else Text("✕", "red"), f.subject, f.says)
        out.print(table)
    raise typer.Exit(DONE if all(f.ok for f in found) else FAILED)


@app.command()
def score(
    paths: Annotated[list[Path], typer.Argument(help="A DICOM file, a folder of them, or NIfTI.")],
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Grade files or folders; no node is needed."""
    from qcnode.score import find_scans, grade, result

    settings = load(config)
    scans = find_scans(paths)
    from qcnode.ensemble.runtime import Ensemble

    assessing = settings.assessing
    ensemble = Ensemble.load(assessing.weights, assessing.device, assessing.threads)
    results: list[dict[str, Any]] = []
    out = console()
    with _progress("Grading", out, hidden=as_json or len(scans) == 1) as progress:
        task = progress.add_task("", total=len(scans))
        for scan in scans:
            assessment = grade(scan, ensemble, settings.full_policy(), settings.eligibility)
            results.append(result(scan.path, assessment))
            if not as_json:
                out.print(assessment_panel(str(scan.path), assessment))
            progress.advance(task)
    if as_json:
        print(json.dumps(results, indent=2))


@app.command()
def status(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option(help="How many series to show, the latest first.", min=1)] = 20,
) -> None:
    """Show the latest series with their verdicts, and what is still due."""
    from qcnode.status import snapshot

    shown = snapshot(load(config), limit)
    if as_json:
        print(json.dumps(shown, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("received (UTC)", "series", "state", "rev", "verdict", "reason"):
        table.add_column(heading, no_wrap=heading != "reason")
    from qcnode.verdict import Decision

    for one in shown["series"]:
        word = verdict_line(Decision(one["verdict"])) if one["verdict"] else Text("")
        reason = " ".join(one["reasons"]) or one["reason"] or ""
        table.add_row(
            one["received"][5:16], "…" + one["series_uid"][-8:], one["state"], str(one["revision"]), word, reason
        )
    out = console()
    out.print(table if shown["series"] else "Nothing has arrived yet.")
    deliveries = ", ".join(f"{count} {state}" for state, count in shown["deliveries"].items()) or "none"
    out.print(f"\nDeliveries: {deliveries}.")
    for one in shown["dead_letters"]:
        what = f"{one['count']} × {one['kind']}" if one["count"] > 1 else one["kind"]
        line = f"Dead: {what} of …{one['series_uid'][-8:]} to {one['destination']}: {one['error']}"
        out.print(Text(line, style="red"), soft_wrap=True)
    if shown["dead_letters"]:
        out.print("When the cause is mended: qcnode retry --dead, or qcnode retry SERIES_UID.")


@app.command()
def retry(
    series_uid: Annotated[
        str | None, typer.Argument(help="The SeriesInstanceUID, as `qcnode status --json` shows it.")
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead letters instead, whatever their series.")] = False,
    config: ConfigOption = None,
) -> None:
    """Send a failed or excluded series back to be graded, and its dead letters on their way again."""
    from qcnode.status import revive, send_back

    if (series_uid is None) is not dead:
        raise ConfigError("Name one series to send back, or give --dead for all dead letters.")
    done = revive(load(config)) if series_uid is None else send_back(load(config), series_uid)
    console().print(done, soft_wrap=True)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The tar file to write; it must not be there yet.")],
    config: ConfigOption = None,
) -> None:
    """Copy the ledger and the documents into one file, consistently, while the node runs."""
    from qcnode.backup import back_up

    done = back_up(load(config).state, file)
    console().print(
        f"Wrote {done.file}: {done.series} series, {done.documents} documents, {done.size / 1e6:.1f} MB. "
        "To restore it, see docs/operations.md.",
        soft_wrap=True,
    )
    if done.missing:
        raise PermanentError(f"{len(done.missing)} documents are lost from the state folder; {done.missing[0]} is one.")


def main() -> None:
    """Entry point: runs the command, and turns what went wrong into one sentence and an exit code."""
    warnings.simplefilter("ignore")  # libraries' advice to programmers is not for the people who run this
    debug = "--debug" in sys.argv
    try:
        app(standalone_mode=True)
    except ConfigError as error:
        _say(error, debug)
        sys.exit(USAGE)
    except QcnodeError as error:
        _say(error, debug)
        sys.exit(FAILED)


def _say(error: QcnodeError, debug: bool) -> None:
    if debug:
        raise error
    console(stderr=True).print(Text(str(error), style="red"), soft_wrap=True)


def _stop_signals() -> threading.Event:
    """Set by Ctrl-C or SIGTERM; both mean an orderly stop."""
    signalled = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: signalled.set())
    return signalled


def _progress(what: str, out: Console, hidden: bool) -> Progress:
    """A bar on a terminal, gone at its end; nothing where the output goes into a file."""
    return Progress(
        SpinnerColumn(),
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=out,
        disable=hidden or not out.is_terminal,
        transient=True,
    )


def _whereabouts(one: Shown, pages: str | None) -> list[str]:
    """Where the documents of a series are, who got them, and, while the node runs, its page."""
    lines = [f"{kind:8} {delivered}  {path.name if path else ''}".rstrip() for kind, path, delivered in one.documents]
    folders = dict.fromkeys(str(path.parent) for _, path, _ in one.documents if path)
    page = [f"page     {pages}{one.series.series_instance_uid}"] if pages else []
    return [*lines, *(f"in       {folder}" for folder in folders), *page]
