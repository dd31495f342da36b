"""A real node process, and the real peers around it: DCMTK's sender, the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from qcnode.ledger.models import Series
from qcnode.ledger.store import Store
from qcnode.states import DeliveryState, State

FINAL = (State.ASSESSED, State.EXCLUDED, State.FAILED)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], Any], seconds: float = 60.0, what: str = "it") -> Any:
    """The first true value; AssertionError with the name of what did not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := true():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")


def tool(name: str) -> str:
    """A peer's program; not pynetdicom's of the same name, which lies in the environment's folder."""
    path = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/usr/local/bin")
    if path is None:
        pytest.skip(f"{name} is not installed; .ci/run installs it")
    return path


def storescu(
    port: int, *arguments: str | Path, called: str = "QCNODE", calling: str = "SWOOP1"
) -> subprocess.CompletedProcess[str]:
    """DCMTK's sender."""
    command = [tool("storescu"), "-aet", calling, "-aec", called, "127.0.0.1", str(port), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@dataclass
class NodeProcess:
    """`qcnode serve` in a process of its own; it can be killed and started again on the same state."""

    folder: Path
    port: int
    web_port: int
    extra: str = ""  # more of the configuration
    dicom: str = ""  # more of its [dicom] section
    start_seconds: float = 60.0  # that a start may take
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _ledger: Store | None = field(default=None, init=False)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "site.toml"

    def start(self, *, configured: bool = True) -> NodeProcess:
        """configured: by a file that is written anew; else by the one that is there."""
        if configured:
            self._configure()
        log = (self.folder / "node.log").open("ab")
        command = [sys.executable, "-m", "qcnode", "serve", "--config", str(self.config)]
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        log.close()
        wait_until(self._answers, self.start_seconds, "the start of the node")
        return self

    def _configure(self) -> None:
        self.config.write_text(
            f'[dicom]\nhost = "127.0.0.1"\nport = {self.port}\n{self.dicom}\n'
            f'[state]\nfolder = "{self.state}"\n[web]\nport = {self.web_port}\n{self.extra}'
        )

    def kill(self) -> None:
        """SIGKILL to the node and its grading process, as a power cut would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, seconds: float = 60) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=seconds)

    def end(self) -> None:
        """Kill it if it still runs, and let go of its ledger."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if self._ledger is not None:
            self._ledger.close()

    @property
    def log(self) -> str:
        return (self.folder / "node.log").read_text()

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def series(self, series_uid: str) -> Series | None:
        """What its ledger says of the series now."""
        if self._ledger is None:
            self._ledger = Store(f"sqlite:///{self.state / 'ledger.sqlite3'}")
        return self._ledger.overview.detail(series_uid)

    def finished(self, series_uid: str, revision: int = 1, seconds: float = 90.0) -> Series:
        """The series, once this revision of it came to an end and its documents were delivered."""

        def look() -> Series | None:
            one = self.series(series_uid)
            if one is None or one.state not in FINAL or one.revision < revision:
                return None
            due = [d for a in one.assessments for document in a.documents for d in document.deliveries]
            return one if all(d.state is not DeliveryState.PENDING for d in due) else None

        found = wait_until(look, seconds, f"the end of series {series_uid}")
        assert isinstance(found, Series)
        return found

    def status(self) -> dict[str, Any]:
        """What `qcnode status --json` prints."""
        done = qcnode("status", "--json", "--config", self.config)
        assert done.returncode == 0, done.stderr
        printed = json.loads(done.stdout)
        assert isinstance(printed, dict)
        return printed

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the node ended with {self.process.returncode}: {self.log}")
        try:
            return self.get("/healthz") == b"ok"
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


@contextmanager
def nodes(folder: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Starts nodes, each on a state folder and ports of its own, and ends them."""
    started: list[NodeProcess] = []

    def start(extra: str = "", dicom: str = "") -> NodeProcess:
        own = folder / f"node{len(started)}"
        own.mkdir()
        node = NodeProcess(own, free_port(), free_port(), extra, dicom)
        started.append(node)
        return node.start()

    try:
        yield start
    finally:
        for node in started:
            node.end()


def qcnode(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "qcnode", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
