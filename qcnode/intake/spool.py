"""The spool: what arrived, as files that are either complete or not there.

    <state>/spool/<SeriesInstanceUID>/<SOPInstanceUID>.dcm                     the instance, kept as it came first
    <state>/spool/conflicts/<SeriesInstanceUID>/<SOPInstanceUID>.<hash>.dcm    other bytes under the same UIDs
    <state>/spool/tmp/                                                         being put; perhaps nobody knows of it yet
    <state>/spool/lock                                                         held by byte: whose name is being put

Each file is written in tmp, then linked to its name, then synced: put() returns when the file and the names on the way
to it are on disk, so that what it returns outlives a power cut. A power cut before that may leave a name whose file is
torn: the seal in its preamble tells, nobody was told of it, and it makes way for its sender's next attempt. Where the
file system keeps its metadata in order, the one sync of the file is enough (disk.py); elsewhere folders are synced too.

Any number of processes may put at once, while the node removes. The temporary file bears its process's number, and goes
after the node was told: what a process that died leaves there is all that the node may not know of.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import tempfile
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from qcnode.errors import PermanentError
from qcnode.intake.disk import data_set_digest, is_whole, sealed, sync_folder, syncs_names_with_files
from qcnode.intake.facts import is_uid

_FLOCK = struct.Struct("hhqqi0q")  # of fcntl(2), on 64-bit Linux


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
    """What arrived, keyed on series and SOP Instance UID; safe for all who put and remove, in any process."""

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
        self._synced: dict[Path, int] = {}  # series folders whose own names are on disk, as of how many removals
        self._busy: set[int] = set()  # bytes of the lock that this process holds
        self._freed = threading.Condition()
        self._lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        weakref.finalize(self, os.close, self._lock)

    @property
    def folder(self) -> Path:
        """The state folder."""
        return self._state

    def put(
        self,
        data: bytes,
        series_uid: str,
        sop_instance_uid: str,
        told: Callable[[Receipt], None] = lambda receipt: None,
    ) -> Receipt:
        """Keep the bytes of a Part 10 file, in whose preamble its seal is put; OSError when it is not durable.

        `told` is called as soon as it is durable: what a process leaves that dies before is found by left_by().
        """
        name = self._path(series_uid, sop_instance_uid)
        digest = data_set_digest(data)
        with (
            _file(sealed(data, digest), self._temporary, f".{os.getpid()}-") as (descriptor, temporary),
            self._alone(name),
        ):
            outcome = Outcome.STORED
            is_new = self._linked(temporary, name)
            if not is_new:
                os.utime(name)  # its sender wants it kept: see remove()
            if not is_new and data_set_digest(name.read_bytes()) == digest:
                outcome = Outcome.DUPLICATE
            elif not is_new:
                outcome = Outcome.CONFLICT
                name = self._conflicts / series_uid / f"{sop_instance_uid}.{digest.hex()[:16]}.dcm"
                with self._alone(name.parent):
                    is_new = self._linked(temporary, name)
            try:
                self._sync(name, descriptor if is_new else None)
            except OSError:
                if is_new:  # it may be torn; and nobody else has it, as we are alone with its name
                    name.unlink(missing_ok=True)
                raise
            receipt = Receipt(outcome, name.relative_to(self._state), digest.hex(), len(data))
            told(receipt)  # before another can find it in conflict with its own
        return receipt

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

    def left_by(self, process: int) -> Iterator[bytes]:
        """Files that a process which ended may have told nobody of, to be put again; what it half wrote goes."""
        for path in self._temporary.glob(f".{process}-*"):
            if path.stat().st_nlink > 1:
                yield path.read_bytes()
            path.unlink()

    def clear_temporary(self) -> int:
        """Delete what a crash left half written; call it before the listener starts. Returns the number of files."""
        left = list(self._temporary.iterdir())
        for path in left:
            path.unlink()
        return len(left)

    def sent_since(self, series_uid: str, moment: datetime) -> set[str]:
        """The SOP Instance UIDs of a series' instances that came, or came again, at this moment or later."""
        return {uid for uid in self.instances(series_uid) if _is_since(self._path(series_uid, uid), moment)}

    def remove(
        self, series_uid: str, only: Collection[str] | None = None, before: datetime | None = None
    ) -> tuple[str, ...]:
        """Delete a series, or only these of its instances; its conflicts go with its last instance.

        Returns those that were left because they came, or came again, at the moment `before` or later: somebody was
        told, or is about to be, that they are here.
        """
        folder, conflicts = self._path(series_uid, "0").parent, self._conflicts / series_uid
        left: list[str] = []
        for sop_instance_uid in self.instances(series_uid):
            if only is None or sop_instance_uid in only:
                with self._alone(name := self._path(series_uid, sop_instance_uid)):
                    if before is not None and _is_since(name, before):
                        left.append(sop_instance_uid)
                    else:
                        name.unlink(missing_ok=True)
        self._remove_emptied(series_uid, folder, conflicts)
        return tuple(left)

    def _remove_emptied(self, series_uid: str, folder: Path, conflicts: Path) -> None:
        with self._alone(conflicts):  # while no other comes, which would be of an instance that is here
            if self.instances(series_uid):
                return
            for name in conflicts.glob("*.dcm"):
                name.unlink()
            os.write(self._lock, b".")  # before a folder goes: the others count the removals by the lock's size
            for gone in (folder, conflicts):
                with suppress(OSError):  # it is not there, or something came since
                    gone.rmdir()

    def _path(self, series_uid: str, sop_instance_uid: str) -> Path:
        return instance_path(self._state, series_uid, sop_instance_uid)

    @contextmanager
    def _alone(self, name: Path) -> Iterator[None]:
        """Wait until nobody else puts an instance of this name: what is there then is durable, or left over.

        No thread of this process, and no other process, which would hold the byte of the lock that the name hashes to.
        """
        byte = int.from_bytes(hashlib.blake2b(bytes(name.relative_to(self._root)), digest_size=7).digest())
        with self._freed:
            self._freed.wait_for(lambda: byte not in self._busy)
            self._busy.add(byte)
        try:
            self._hold(byte, fcntl.F_WRLCK)
            try:
                yield
            finally:
                self._hold(byte, fcntl.F_UNLCK)
        finally:
            with self._freed:
                self._busy.remove(byte)
                self._freed.notify_all()

    def _hold(self, byte: int, kind: int) -> None:
        fcntl.fcntl(self._lock, fcntl.F_OFD_SETLKW, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))

    def _linked(self, temporary: Path, name: Path) -> bool:
        """Give the file its name, in a folder that is made where missing; False when a whole file has it."""
        while True:
            with suppress(FileExistsError):
                name.parent.mkdir()
            try:
                os.link(temporary, name)
            except FileNotFoundError:
                if not temporary.exists():
                    raise
                # else the folder was removed, with the last that was in it
            except FileExistsError:
                if is_whole(name.read_bytes()):
                    return False
                name.unlink()
            else:
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
        removals = os.fstat(self._lock).st_size  # since our name is there, so its folder is of after them
        if self._synced.get(name.parent) != removals:
            sync_folder(name.parent.parent)
            self._synced[name.parent] = removals


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


def _is_since(path: Path, moment: datetime) -> bool:
    try:
        return path.stat().st_mtime >= moment.timestamp()
    except FileNotFoundError:
        return False


@contextmanager
def _file(parts: Iterable[bytes | memoryview], folder: Path, prefix: str) -> Iterator[tuple[int, Path]]:
    """A file of its own name in the folder that holds these parts, not synced; its name goes at the end."""
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".partial", dir=folder)
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
