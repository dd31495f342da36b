"""Assessments as a terminal shows them, 80 columns wide."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qcnode.artifacts import Severity
from qcnode.verdict import Assessment, Decision, slice_ranges

# One word, one colour, and one shape, so that the colour is never needed.
SIGN = {
    Decision.ACCEPT: ("✓", "green"),
    Decision.REVIEW: ("▲", "yellow"),
    Decision.RESCAN: ("✕", "red"),
    Decision.NOT_ASSESSABLE: ("?", "magenta"),
}
_SEVERITY_STYLE = {Severity.NONE: "dim", Severity.MODERATE: "yellow", Severity.SEVERE: "bold red"}
_BAR_WIDTH = 24


def console(stderr: bool = False) -> Console:
    """The terminal, or a file, never wider than 100 columns."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return made if made.width <= 100 else Console(stderr=stderr, highlight=False, width=100)


def verdict_line(decision: Decision) -> Text:
    """The verdict in one word with its sign."""
    sign, colour = SIGN[decision]
    return Text(f"{sign} {decision.value.replace('_', ' ').upper()}", style=f"bold {colour}")


def assessment_panel(title: str, assessment: Assessment) -> Panel:
    """One series: verdict, reasons, and the seven grades with their probabilities."""
    parts: list[RenderableType] = [verdict_line(assessment.verdict.decision), _reasons(assessment.verdict.reasons)]
    if assessment.grades:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for heading in ("Artifact", "Grade"):
            table.add_column(heading)
        for heading in ("none", "moderate", "severe"):
            table.add_column(heading, justify="right")
        table.add_column("")
        for artifact, grade in assessment.grades.items():
            style = _SEVERITY_STYLE[grade.severity]
            numbers = [f"{p:.2f}" for p in grade.probabilities]
            table.add_row(
                artifact.value, Text(grade.severity.name.lower(), style=style), *numbers, _bar(grade.probabilities)
            )
        parts += ["", table, *_located(assessment)]
    subtitle = Text(" · ".join(filter(None, (assessment.plane and assessment.plane.value, assessment.ensemble))))
    colour = SIGN[assessment.verdict.decision][1]
    return Panel(
        Group(*parts),
        title=Text(title),
        title_align="left",
        subtitle=subtitle,
        subtitle_align="right",
        border_style=colour,
    )


def _located(assessment: Assessment) -> list[RenderableType]:
    """Where the grades are that a few slices carry."""
    counted = f", counted from {assessment.counted_from}" if assessment.counted_from else ""
    lines = [
        Text(f"{artifact.value} in {slice_ranges(grade.slices)}{counted}.")
        for artifact, grade in assessment.grades.items()
        if grade.slices
    ]
    return ["", *lines] if lines else []


def _reasons(reasons: Sequence[str]) -> Table:
    """One below the other; the second line of a long one is set in."""
    table = Table.grid(padding=(0, 1))
    for reason in reasons:
        table.add_row(*(["-"] if len(reasons) > 1 else []), Text(reason))
    return table


def _bar(probabilities: tuple[float, float, float]) -> Text:
    """none, moderate and severe as parts of one bar, told apart by their fill as well as their colour."""
    severe = round(probabilities[2] * _BAR_WIDTH)
    moderate = min(round(probabilities[1] * _BAR_WIDTH), _BAR_WIDTH - severe)
    return Text.assemble(
        ("█" * severe, "red"), ("▒" * moderate, "yellow"), ("·" * (_BAR_WIDTH - severe - moderate), "dim")
    )
