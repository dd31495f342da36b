"""What the disk under the spool promises, and marks by which a file says that it is whole."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_PREAMBLE_BYTES = 128
_MARK = b"QCNODE02"
_SEAL_BYTES = len(_MARK) + hashlib.sha256().digest_size


def syncs_names_with_files(folder: Path) -> bool:
    """Whether syncing a file there also brings all changes of names before it to the disk, in one go.

    ext4 with its journal commits the whole transaction in which the inode changed last, and a new link changes it; xfs
    forces its log up to that change. Both logs are in order, so what came before is there too (Mohan et al., "Finding
    Crash-Consistency Bugs with Bounded Black-Box Crash Testing", OSDI 2018, Section 2, call it strictly ordered
    metadata consistency). POSIX promises none of it (fsync(2)), so anywhere else, overlays too, the answer is no.
    """
    try:
        device = folder.stat().st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        kinds = {fields[fields.index("-") + 1] for fields in lines if fields[2] == number}
        name = Path(f"/sys/dev/block/{number}").resolve().name
    except OSError:
        return False
    return kinds == {"xfs"} or (kinds == {"ext4"} and any(Path("/proc/fs/jbd2").glob(f"{name}-*")))


def data_set_digest(part10: bytes) -> bytes:
    """SHA-256 of what follows the file meta, so that another sender's name in it makes no other instance."""
    return hashlib.sha256(memoryview(part10)[_data_set_at(part10) :]).digest()


def sealed(part10: bytes, digest: bytes) -> tuple[bytes, memoryview]:
    """The file in two parts, its preamble holding a seal over all that follows (PS3.10 Section 7.1 leaves it free).

    digest: data_set_digest of the file, which is large, so that it is read through only once.
    """
    return (_MARK + _seal(part10, digest)).ljust(_PREAMBLE_BYTES, b"\0"), memoryview(part10)[_PREAMBLE_BYTES:]


def is_whole(part10: bytes) -> bool:
    """Whether all of it came to the disk. A file without a seal was synced before it had its name."""
    if part10[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] != b"DICM":
        return False
    if not part10.startswith(_MARK):
        return True
    return part10[len(_MARK) : _SEAL_BYTES] == _seal(part10, data_set_digest(part10))


def _seal(part10: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(part10[_PREAMBLE_BYTES : _data_set_at(part10)] + digest).digest()


def _data_set_at(part10: bytes) -> int:
    """Where the file meta ends, whose length its first element states (PS3.10 Section 7.1); 128 where it does not."""
    if part10[132:136] != b"\x02\x00\x00\x00":
        return _PREAMBLE_BYTES
    return 144 + int.from_bytes(part10[140:144], "little")


def sync_folder(folder: Path) -> None:
    """Wait until the names in the folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
