"""Certificates made at run time, by OpenSSL: an authority, and who it signed for."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


def authority(folder: Path, name: str = "authority") -> Identity:
    """An authority that vouches for itself."""
    return _made(folder, name, "-addext", "basicConstraints=critical,CA:TRUE")


def identity(folder: Path, name: str, by: Identity, names: str = "DNS:localhost,IP:127.0.0.1") -> Identity:
    """Somebody whom the authority signed for, under these subject alternative names."""
    return _made(
        folder, name, "-CA", by.certificate, "-CAkey", by.key, "-addext", f"subjectAltName={names}", "-addext",
        "basicConstraints=CA:FALSE",
    )  # fmt: skip


def _made(folder: Path, name: str, *options: str | Path) -> Identity:
    made = Identity(folder / f"{name}.pem", folder / f"{name}.key")
    command = [str(OPENSSL), "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", f"/CN={name}"]
    command += [*map(str, options), "-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return made
