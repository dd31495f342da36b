"""The spool under several processes that put and remove at the same time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dicom_instances import SERIES
from test_spool import FIRST, OTHER, SOP

from qcnode.intake.spool import Outcome, Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


_PUT = """
import sys
from pathlib import Path
from qcnode.intake.spool import Spool
spool, data = Spool(Path(sys.argv[1])), Path(sys.argv[2]).read_bytes()
names = [name.split() for name in sys.argv[3:]]
print("ready", flush=True)
sys.stdin.readline()
print(*(spool.put(data, *name).outcome for name in names))
"""


def putting(folder: Path, data: bytes, names: list[tuple[str, str]]) -> subprocess.Popen[str]:
    """A process that puts the data under these names once it gets a line, and prints what became of them."""
    (file := folder / f"{hashlib.sha256(data).hexdigest()}.data").write_bytes(data)
    command = [sys.executable, "-c", _PUT, str(folder), str(file), *map(" ".join, names)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def outcomes(processes: list[subprocess.Popen[str]], meanwhile: Callable[[], object] = lambda: None) -> list[list[str]]:
    """What each of the processes printed, once they have put all at the same time."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    while any(process.poll() is None for process in processes):
        meanwhile()
    said = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return said


def test_processes_that_put_one_instance_make_one(spool: Spool, tmp_path: Path) -> None:
    names = [(SERIES, f"{SERIES}.{number}") for number in range(30)]
    said = outcomes([putting(tmp_path, data, names) for data in (FIRST, OTHER, FIRST, OTHER)])
    for number, found in enumerate(zip(*said, strict=True)):
        assert sorted(found) == ["conflict", "conflict", "duplicate", "stored"], names[number]
    kept = [spool.read(*name) for name in names]
    beside = sorted((tmp_path / "spool" / "conflicts" / SERIES).iterdir())
    assert [FIRST if path.read_bytes() == OTHER else OTHER for path in beside] == [
        spool.read(SERIES, path.name.rsplit(".", 2)[0]) for path in beside
    ]
    assert len(beside) == len(kept) == 30
    assert not list((tmp_path / "spool" / "tmp").iterdir())


def test_a_series_may_go_while_other_processes_put_into_it(spool: Spool, tmp_path: Path) -> None:
    """None of them fails, and what was not to go is there: an emptied folder goes only while it is empty."""
    gone = SERIES + ".7"
    going, staying = [(gone, SOP), (SERIES, SOP)] * 30, [(SERIES, f"{SERIES}.{n}") for n in range(100, 160)]
    processes = [putting(tmp_path, FIRST, going), putting(tmp_path, OTHER, going), putting(tmp_path, FIRST, staying)]
    said = outcomes(processes, lambda: (spool.remove(gone), spool.remove(SERIES, {SOP})))
    assert said[2] == ["stored"] * 60
    assert "stored" in said[0][1:] + said[1][1:], "it never went: it showed nothing"
    assert set(staying) <= set(spool.scan())
    assert [spool.read(*name) for name in staying] == [FIRST] * 60


def test_a_lock_of_a_process_that_dies_is_free(spool: Spool, tmp_path: Path) -> None:
    name = tmp_path / "spool" / SERIES / f"{SOP}.dcm"
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom qcnode.intake.spool import Spool\n"
        f"with Spool(Path({str(tmp_path)!r}))._alone(Path({str(name)!r})): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert spool.put(FIRST, SERIES, SOP).outcome is Outcome.STORED
