"""What a terminal shows of an assessment: within its width, complete, and readable without colour."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting_cases import ASSESSMENTS, assessment
from rich.console import Console

from qcnode.artifacts import Artifact, Severity
from qcnode.console import SIGN, assessment_panel, console, verdict_line
from qcnode.verdict import Assessment, Decision, Grade

WIDTH = 80


def shown(one: Assessment, title: str = "scan.dcm", width: int = WIDTH) -> list[str]:
    buffer = io.StringIO()
    Console(file=buffer, width=width, highlight=False, color_system=None).print(assessment_panel(title, one))
    return buffer.getvalue().splitlines()


@st.composite
def grades(draw: st.DrawFn) -> Grade:
    weights = [draw(st.floats(0, 1)) + 1e-9 for _ in Severity]
    none, moderate, severe = (w / sum(weights) for w in weights)
    return Grade(draw(st.sampled_from(Severity)), (none, moderate, severe))


@given(st.fixed_dictionaries({artifact.value: grades() for artifact in Artifact}))
def test_any_grades_fit_each_in_a_row_of_its_own(drawn: dict[str, Grade]) -> None:
    lines = shown(assessment(**drawn))
    assert {len(line) for line in lines} == {WIDTH}
    for artifact, grade in drawn.items():
        (row,) = [line for line in lines if line.startswith(f"│ {artifact} ")]
        assert grade.severity.name.lower() in row
        assert re.findall(r"\d\.\d\d", row) == [f"{p:.2f}" for p in grade.probabilities]
        assert len(re.findall(r"[█▒·]", row)) == len("█" * 24)


def test_the_bar_grows_with_severity() -> None:
    def filled(grade: Grade) -> tuple[int, int]:
        row = next(line for line in shown(assessment(Motion=grade)) if line.startswith("│ Motion"))
        return row.count("█"), row.count("▒")

    assert filled(Grade(Severity.NONE, (1.0, 0.0, 0.0))) == (0, 0)
    assert filled(Grade(Severity.MODERATE, (0.0, 1.0, 0.0))) == (0, 24)
    assert filled(Grade(Severity.SEVERE, (0.0, 0.0, 1.0))) == (24, 0)


@pytest.mark.parametrize("name", ASSESSMENTS)
def test_the_reasons_are_there_whole(name: str) -> None:
    text = " ".join(" ".join(line.strip("│ ") for line in shown(ASSESSMENTS[name])).split())
    assert all(reason in text for reason in ASSESSMENTS[name].verdict.reasons)
    assert verdict_line(ASSESSMENTS[name].verdict.decision).plain in text


def test_each_verdict_has_a_sign_of_its_own_so_that_no_colour_is_needed() -> None:
    assert set(SIGN) == set(Decision)
    assert len({sign for sign, _ in SIGN.values()}) == len(Decision)
    assert verdict_line(Decision.NOT_ASSESSABLE).plain == "? NOT ASSESSABLE"


def test_a_file_name_is_text_not_markup() -> None:
    assert "[red]scan[/red].dcm" in shown(ASSESSMENTS["accept"], "[red]scan[/red].dcm")[0]


def test_a_wide_terminal_does_not_stretch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert console().width == 100
    monkeypatch.setenv("COLUMNS", "72")
    assert console().width == 72


def test_the_slices_that_carry_a_grade_are_named() -> None:
    moved = Grade(Severity.SEVERE, (0.0, 0.1, 0.9), (3, 4, 5))
    lines = shown(replace(assessment(Motion=moved, Noise=replace(moved, slices=())), counted_from="the feet"))
    assert any("Motion in slices 4-6, counted from the feet." in line for line in lines)
    assert not any("Noise in" in line for line in lines)
