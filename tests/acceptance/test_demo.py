"""`qcnode demo` in a real process: two synthetic series, and what the shipped ensemble says of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qcnode.artifacts import Artifact

COLUMNS = 80


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a terminal of 80 columns; what it keeps goes with the tests' folder."""
    environment = os.environ | {"COLUMNS": str(COLUMNS), "TMPDIR": str(folder)}
    command = [sys.executable, "-m", "qcnode", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


@pytest.fixture(scope="module")
def as_json(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    return demo(tmp_path_factory.mktemp("demo"), "--json")


@pytest.fixture(scope="module")
def as_text(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    return demo(tmp_path_factory.mktemp("demo"))


def test_it_prints_the_list_that_score_prints(as_json: subprocess.CompletedProcess[str]) -> None:
    assert as_json.returncode == 0, as_json.stderr
    results = json.loads(as_json.stdout)
    assert len(results) == 2
    for one in results:
        assert set(one["artifacts"]) == {artifact.value for artifact in Artifact}
        for grade in one["artifacts"].values():
            assert sum(grade["probabilities"]) == pytest.approx(1, abs=1e-3)
        assert one["plane"] == "axial"
        assert one["ensemble"]
        assert one["reasons"]
        assert any(Path(one["path"]).iterdir()), "the path is where the instances are"


def test_the_clean_scan_is_accepted_and_the_moved_one_is_to_be_repeated(
    as_json: subprocess.CompletedProcess[str],
) -> None:
    clean, moved = json.loads(as_json.stdout)
    assert clean["verdict"] == "accept", clean
    assert all(grade["severity"] == 0 for grade in clean["artifacts"].values())
    assert moved["verdict"] == "rescan", moved
    assert moved["artifacts"]["Motion"]["severity"] == 2
    assert "Severe motion. Repeat this scan; settle the child first." in moved["reasons"]


def test_it_says_what_happened_where_and_ends_without_a_traceback(as_text: subprocess.CompletedProcess[str]) -> None:
    assert as_text.returncode == 0, as_text.stderr
    told = as_text.stderr
    assert "Traceback" not in told + as_text.stdout
    assert "node started" in told
    assert told.count("over a DICOM association") == 2
    assert told.count("is assessed") == 2
    for word in ("report", "flag", "capture", "page", "--keep", "sent to archive"):
        assert word in as_text.stdout


def test_its_tables_fit_a_terminal_of_80_columns(as_text: subprocess.CompletedProcess[str]) -> None:
    lines = as_text.stdout.splitlines()
    framed = [line for line in lines if line.startswith(("│", "╭", "╰"))]
    assert {len(line) for line in framed} == {COLUMNS}
    for artifact in Artifact:
        rows = [line for line in lines if re.match(rf"│ {artifact.value} ", line)]
        assert len(rows) == 2, artifact
        assert all(len(re.findall(r"\d\.\d\d", row)) == 3 for row in rows), "a grade and its three numbers in one row"


def test_what_it_says_lies_somewhere_does(as_text: subprocess.CompletedProcess[str]) -> None:
    kept = as_text.stdout.strip().splitlines()[-1].rsplit(" ", 1)[1]
    named = re.findall(r"^  (report|flag|capture) +sent to archive  (\S+\.dcm)$", as_text.stdout, re.MULTILINE)
    assert [kind for kind, _ in named].count("report") == 2
    archived = {path.name for path in (Path(kept) / "archive").glob("*.dcm")}
    assert {name for _, name in named} == archived
    assert as_text.stdout.count(f"  in       {kept}/archive\n") == 2


def test_ctrl_c_while_it_waits_for_verdicts_ends_it_in_order(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qcnode", "demo"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr
        told = []
        for line in process.stderr:
            told.append(line)
            if "is assessing" in line:
                break
        process.send_signal(signal.SIGINT)
        shown, rest = process.communicate(timeout=120)
    assert process.returncode == 130, "".join(told) + rest
    assert "Traceback" not in rest
    assert "Severe motion" not in shown, "it had not come so far"
