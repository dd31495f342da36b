"""The listener's TLS door, with DCMTK's tools as peers."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Identity, needs_openssl
from dicom_instances import SERIES, files, stack

from qcnode.config import Dicom, parse
from qcnode.errors import ConfigError
from qcnode.intake.listener import Listener
from qcnode.intake.spool import Spool

pytestmark = [
    needs_openssl,
    pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK's tools are not installed"),
]


@pytest.fixture
def start(tmp_path: Path, ours: Identity) -> Iterator[Callable[..., Listener]]:
    """Starts listeners with our certificate."""
    started: list[Listener] = []

    def start(**settings: Any) -> Listener:
        dicom = Dicom(
            host="127.0.0.1",
            port=0,
            processes=2,
            tls_port=0,
            tls_certificate=ours.certificate,
            tls_key=ours.key,
            **settings,
        )
        started.append(Listener(dicom, Spool(tmp_path / "state"), lambda received: None))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.stop(0.0)


def peer(
    tool: str, port: int, trusts: Identity, shows: Identity | None, *send: str
) -> subprocess.CompletedProcess[str]:
    """DCMTK's sender over TLS."""
    shown = ["+tls", str(shows.key), str(shows.certificate)] if shows else ["+tla"]
    command = [f"/usr/bin/{tool}", *shown, "+cf", str(trusts.certificate), "127.0.0.1", str(port), *send]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_dcmtk_sends_with_a_client_certificate(
    start: Callable[..., Listener], trusted: Identity, theirs: Identity, tmp_path: Path
) -> None:
    node = start(tls_client_ca=trusted.certificate)
    sent = peer("storescu", node.tls_port, trusted, theirs, *files(tmp_path, stack(3)))
    assert sent.returncode == 0, sent.stderr
    assert len(Spool(tmp_path / "state").instances(SERIES)) == 3
    assert peer("echoscu", node.tls_port, trusted, theirs).returncode == 0


def test_without_an_authority_nobody_is_asked_for_a_certificate(
    start: Callable[..., Listener], trusted: Identity
) -> None:
    assert peer("echoscu", start().tls_port, trusted, None).returncode == 0


def test_a_certificate_that_nobody_trusts_is_refused_in_one_sentence(
    start: Callable[..., Listener],
    trusted: Identity,
    theirs: Identity,
    stranger: Identity,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    node = start(tls_client_ca=trusted.certificate)
    for shown in (stranger, None):
        assert peer("echoscu", node.tls_port, trusted, shown).returncode != 0
    node.stop()
    lines = [line.getMessage() for line in caplog.records if "connection_ended" in line.getMessage()]
    assert len(lines) == 2, lines
    assert all("TLS refused: " in line for line in lines), lines


def test_the_plain_port_stays_beside_it_or_goes(start: Callable[..., Listener], tmp_path: Path) -> None:
    both = start()
    plain = subprocess.run(["/usr/bin/echoscu", "127.0.0.1", str(both.port)], timeout=60, check=False)
    assert plain.returncode == 0
    alone = start(plain=False)
    assert alone.tls_port != 0
    assert len(alone._doors) == 1


def test_a_handshake_that_is_not_made_holds_up_nobody_and_ends(
    start: Callable[..., Listener], trusted: Identity
) -> None:
    node = start(network_timeout_seconds=2.0)
    with socket.create_connection(("127.0.0.1", node.tls_port), timeout=20) as silent:
        began = time.monotonic()
        assert peer("echoscu", node.tls_port, trusted, None).returncode == 0
        while silent.recv(100):
            pass
        assert time.monotonic() - began < 15


def test_plain_dicom_on_the_tls_port_is_refused(start: Callable[..., Listener], trusted: Identity) -> None:
    node = start()
    plain = subprocess.run(
        ["/usr/bin/echoscu", "127.0.0.1", str(node.tls_port)], capture_output=True, timeout=60, check=False
    )
    assert plain.returncode != 0
    assert peer("echoscu", node.tls_port, trusted, None).returncode == 0


def test_settings_that_need_a_certificate_say_so() -> None:
    for text in ("plain = false", 'tls_key = "k.pem"', 'tls_client_ca = "ca.pem"'):
        with pytest.raises(ConfigError, match="need tls_certificate"):
            parse(f"[dicom]\n{text}", "site.toml")


def test_a_taken_port_is_named_whichever_door_it_is(tmp_path: Path, ours: Identity) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Dicom(host="127.0.0.1", port=0, tls_port=port, tls_certificate=ours.certificate, tls_key=ours.key)
        with pytest.raises(OSError, match="Address already in use") as refused:
            Listener(settings, Spool(tmp_path), lambda received: None).start()
    assert refused.value.filename == f"127.0.0.1:{port}"
