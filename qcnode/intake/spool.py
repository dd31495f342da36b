"""The spool: what arrived, as files that are either complete or not there.

    <state>/spool/<SeriesInstanceUID>/<SOPInstanceUID>.dcm                     the instance, kept as it came first
    <state>/spool/conflicts/<SeriesInstanceUID>/<SOPInstanceUID>.<hash>.dcm    other bytes under the same UIDs
    <state>/spool/tmp/                                                         being written; nobody was told of it yet

Each file is written in tmp, then linked to its name, then synced: put() returns when the file and the names on the way
to it are on disk, so that what it returns outlives a power cut. A power cut before that may leave a name whose file is
torn: the seal in its preamble tells, nobody was told of it, and it makes way for its sender's next attempt. Where the
file system keeps its metadata in order, the one sync of the file is enough (disk.py); elsewhere folders are synced too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from qcnode.errors import PermanentError
from qcnode.intake.disk import data_set_digest, is_whole, sealed, sync_folder, syncs_names_with_files
from qcnode.intake.facts import is_uid


class Outcome(StrEnum):
    """What became of an instance that was put into the spool."""

    STORED = "stored"
    DUPLICATE = "duplicate"  # the same data set is there already; nothing changed
    CONFLICT = "conflict"  # another data set has its UIDs; that one stays, this one was kept beside


@dataclass(frozen=True)
class Receipt:
    """An instance that is on disk for good.

    path: relative to the state folder. sha256: hexadecimal, of the data set without the file meta. size: bytes of the
    file.
    """

    outcome: Outcome
    path: Path
    sha256: str
    size: int


class Spool:
    """What arrived, keyed on series and SOP Instance UID; safe for concurrent senders of the same instance."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the state folder; it and the spool in it are made where missing."""
        self._state = folder
        self._root = folder / "spool"
        self._temporary = self._root / "tmp"
        self._conflicts = self._root / "conflicts"
        for made in (self._root, self._temporary, self._conflicts):
            made.mkdir(parents=True, exist_ok=True)
        sync_folder(self._root)
        sync_folder(self._state)
        self._one_sync = syncs_names_with_files(self._root)
        self._names = threading.Lock()  # held while a name comes or goes, so that no folder goes from under a new name
        self._synced: set[Path] = set()  # series folders whose own names are known to be on disk
        self._busy: set[Path] = set()  # names that are being put
        self._freed = threading.Condition()

    @property
    def folder(self) -> Path:
        """The state folder."""
        return self._state

    def put(self, data: bytes, series_uid: str, sop_instance_uid: str) -> Receipt:
        """Keep the bytes of a Part 10 file, in whose preamble its seal is put; OSError when it is not durable."""
        name = self._path(series_uid, sop_instance_uid)
        digest = data_set_digest(data)
        with self._alone(name), _file(sealed(data, digest), self._temporary) as (descriptor, temporary):
            outcome = Outcome.STORED
            is_new = self._linked(temporary, name)
            if not is_new and data_set_digest(name.read_bytes()) == digest:
                outcome = Outcome.DUPLICATE
            elif not is_new:
                outcome = Outcome.CONFLICT
                name = self._conflicts / series_uid / f"{sop_instance_uid}.{digest.hex()[:16]}.dcm"
                is_new = self._linked(temporary, name)
            try:
                self._sync(name, descriptor if is_new else None)
            except OSError:
                if is_new:  # it may be torn; and nobody else has it, as we are alone with its name
                    name.unlink(missing_ok=True)
                raise
        return Receipt(outcome, name.relative_to(self._state), digest.hex(), len(data))

    def read(self, series_uid: str, sop_instance_uid: str) -> bytes:
        """The bytes of one instance's Part 10 file."""
        return self._path(series_uid, sop_instance_uid).read_bytes()

    def receipt(self, series_uid: str, sop_instance_uid: str) -> Receipt:
        """The receipt of an instance that is there already."""
        path = self._path(series_uid, sop_instance_uid)
        data = path.read_bytes()
        return Receipt(Outcome.STORED, path.relative_to(self._state), data_set_digest(data).hex(), len(data))

    def instances(self, series_uid: str) -> tuple[str, ...]:
        """The SOP Instance UIDs of a series, sorted; none for a series that is not here."""
        if not is_uid(series_uid) or not (folder := self._root / series_uid).is_dir():
            return ()
        return tuple(sorted(path.stem for path in folder.glob("*.dcm")))

    def scan(self) -> Iterator[tuple[str, str]]:
        """Series and SOP Instance UID of all that is complete on disk, for adoption at start."""
        for folder in sorted(self._root.iterdir()):
            yield from ((folder.name, sop_instance_uid) for sop_instance_uid in self.instances(folder.name))

    def drop_torn(self, series_uid: str, sop_instance_uid: str) -> bool:
        """Delete the file if a power cut tore it, before anybody was told of it; says whether it did."""
        path = self._path(series_uid, sop_instance_uid)
        if is_whole(path.read_bytes()):
            return False
        self.remove(series_uid, {sop_instance_uid})
        return True

    def clear_temporary(self) -> int:
        """Delete what a crash left half written; call it before the listener starts. Returns the number of files."""
        left = list(self._temporary.iterdir())
        for path in left:
            path.unlink()
        return len(left)

    def remove(self, series_uid: str, only: Collection[str] | None = None) -> None:
        """Delete a series, or only these of its instances; its conflicts go with its last instance."""
        folder = self._path(series_uid, "0").parent
        with self._names:
            for sop_instance_uid in self.instances(series_uid):
                if only is None or sop_instance_uid in only:
                    self._path(series_uid, sop_instance_uid).unlink(missing_ok=True)
            if not self.instances(series_uid):
                for gone in (folder, self._conflicts / series_uid):
                    shutil.rmtree(gone, ignore_errors=True)
                    self._synced.discard(gone)

    def _path(self, series_uid: str, sop_instance_uid: str) -> Path:
        return instance_path(self._state, series_uid, sop_instance_uid)

    @contextmanager
    def _alone(self, name: Path) -> Iterator[None]:
        """Wait until nobody else puts an instance of this name: what is there then is durable, or left over."""
        with self._freed:
            self._freed.wait_for(lambda: name not in self._busy)
            self._busy.add(name)
        try:
            yield
        finally:
            with self._freed:
                self._busy.remove(name)
                self._freed.notify_all()

    def _linked(self, temporary: Path, name: Path) -> bool:
        """Give the file its name, in a folder that is made where missing; False when a whole file has it."""
        with self._names:
            try:
                name.parent.mkdir()
                self._synced.discard(name.parent)
            except FileExistsError:
                pass
            try:
                os.link(temporary, name)
            except FileExistsError:
                if is_whole(name.read_bytes()):
                    return False
                name.unlink()
                os.link(temporary, name)
        return True

    def _sync(self, name: Path, descriptor: int | None) -> None:
        """Wait for the file and its names; without a descriptor, for one that was there, perhaps not on disk yet."""
        if descriptor is None:
            with name.open("rb") as file:
                os.fsync(file.fileno())
        else:
            os.fsync(descriptor)
        if self._one_sync:
            return
        sync_folder(name.parent)
        with self._names:
            if name.parent not in self._synced:
                sync_folder(name.parent.parent)
                self._synced.add(name.parent)


def instance_path(folder: Path, series_uid: str, sop_instance_uid: str) -> Path:
    """Where the spool of a state folder keeps an instance; PermanentError for what is no UID."""
    if not is_uid(series_uid) or not is_uid(sop_instance_uid):
        raise PermanentError("Only a UID names a file in the spool; mend the sender.")
    return folder / "spool" / series_uid / f"{sop_instance_uid}.dcm"


def write_durably(path: Path, data: bytes) -> None:
    """Put a file in place, in one instant and for good; what had its name is replaced. OSError leaves all as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _written(data, path.parent)
    try:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    sync_folder(path.parent.parent)


@contextmanager
def _file(parts: Iterable[bytes | memoryview], folder: Path) -> Iterator[tuple[int, Path]]:
    """A file of its own name in the folder that holds these parts, not synced; its name goes at the end."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=folder)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for part in parts:
                rest = memoryview(part)
                while rest:
                    rest = rest[file.write(rest) :]
            yield descriptor, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _written(data: bytes, folder: Path) -> Path:
    """A file of its own name in the folder that holds the data, synced."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=folder)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
