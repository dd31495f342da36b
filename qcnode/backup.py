"""A consistent copy of what the node knows and made, while it runs: the ledger and the documents, as one tar file.

    ledger.sqlite3            as it was at one instant
    documents/<UID>.dcm       those that this ledger names
    documents/<UID>.png       and the pictures of three planes
    export.key                with which `qcnode export` names patients, once it has
    SHA256SUMS                of all of them, as `sha256sum -c` reads it

A document is on disk before the ledger names it and never changes, so the ledger is copied first. The images in the
spool are not part of it: they are large, and the archive or the console has them.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from qcnode.clock import utc_now
from qcnode.config import StateFolder
from qcnode.errors import ConfigError, PermanentError
from qcnode.intake.disk import sync_folder
from qcnode.ledger.store import Store

LEDGER, SUMS, KEY = "ledger.sqlite3", "SHA256SUMS", "export.key"
_FILES = (
    "SELECT path FROM document WHERE path IS NOT NULL UNION SELECT planes FROM assessment WHERE planes IS NOT NULL "
    "ORDER BY path"
)
_ONLY_US = 0o600  # documents name patients


@dataclass(frozen=True)
class Backup:
    """What was written."""

    file: Path
    series: int
    documents: int
    missing: tuple[str, ...]  # documents and pictures that the ledger names and the folder has lost
    size: int  # bytes


def back_up(state: StateFolder, file: Path) -> Backup:
    """Write the copy; the file appears when it is whole. Raises ConfigError for a file that is there already."""
    if state.ledger_url is not None and not state.ledger_url.startswith("sqlite"):
        raise ConfigError(
            "The ledger is in a database of its own: back that up with its own tools (pg_dump), then copy the folder "
            f"{state.folder / 'documents'}."
        )
    if state.ledger_url is None and not (state.folder / LEDGER).exists():
        raise ConfigError(f"There is no ledger in {state.folder}; name the configuration with --config.")
    if file.exists():
        raise ConfigError(f"{file} is there already; give another name.")
    try:
        with tempfile.TemporaryDirectory(prefix=".qcnode-backup-", dir=file.parent) as name:
            ledger, partial = Path(name) / LEDGER, Path(name) / "partial.tar"
            with Store.open(state) as store:
                store.copy_to(ledger)
            series, paths = _contents(ledger)
            missing = _pack(partial, ledger, state.folder, paths)
            size = partial.stat().st_size
            os.link(partial, file)  # unlike a rename, this replaces nothing
        sync_folder(file.parent)
    except FileExistsError as error:
        raise ConfigError(f"{file} is there already; give another name.") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror}); give another place, or make room.") from error
    documents = sum(path.endswith(".dcm") for path in {*paths}.difference(missing))
    return Backup(file, series, documents, tuple(missing), size)


def _contents(ledger: Path) -> tuple[int, list[str]]:
    """The number of series in the copy, and the paths of the documents and pictures that it names."""
    with closing(sqlite3.connect(ledger)) as connection:
        if connection.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
            raise PermanentError("The ledger is damaged; stop the node and restore an earlier backup.")
        (series,) = connection.execute("SELECT count(*) FROM series").fetchone()
        rows = connection.execute(_FILES).fetchall()
    return series, [path for (path,) in rows]


def _pack(target: Path, ledger: Path, folder: Path, paths: list[str]) -> list[str]:
    """Write the tar file, durably; returns the documents that are not there."""
    sums: list[str] = []
    missing: list[str] = []
    with target.open("xb") as out:
        os.fchmod(out.fileno(), _ONLY_US)
        with tarfile.open(fileobj=out, mode="w") as tar:
            sums.append(f"{_digest(ledger)}  {LEDGER}")
            tar.add(ledger, LEDGER, filter=_ours)
            for path in [*paths, *([KEY] if (folder / KEY).is_file() else [])]:
                try:
                    data = (folder / path).read_bytes()
                except FileNotFoundError:
                    missing.append(path)
                    continue
                sums.append(f"{hashlib.sha256(data).hexdigest()}  {path}")
                _add(tar, path, data)
            _add(tar, SUMS, "".join(f"{line}\n" for line in sums).encode())
        out.flush()
        os.fsync(out.fileno())
    return missing


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = _ours(tarfile.TarInfo(name))
    entry.size, entry.mtime = len(data), int(utc_now().timestamp())
    tar.addfile(entry, BytesIO(data))


def _ours(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Readable by the one who unpacks it, whoever that is, and by nobody else."""
    entry.mode, entry.uid, entry.gid, entry.uname, entry.gname = _ONLY_US, 0, 0, "", ""
    return entry


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
