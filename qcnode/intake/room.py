"""Room for what arrives, on the disk and in memory, as all receiving processes of a node see it together."""

from __future__ import annotations

import logging
import mmap
import os
import threading
import weakref
from collections.abc import Hashable
from pathlib import Path

log = logging.getLogger(__name__)

MEGABYTE = 1_000_000
_FIGURE_BYTES = 8


class Figures:
    """Whole numbers in memory that processes share. Each has one writer, but for those that any may set."""

    def __init__(self, count: int, descriptor: int | None = None) -> None:
        """New ones, all zero; or those that another process made, by the descriptor that it handed down."""
        self.descriptor = os.memfd_create("figures") if descriptor is None else descriptor
        weakref.finalize(self, os.close, self.descriptor)
        if descriptor is None:
            os.ftruncate(self.descriptor, count * _FIGURE_BYTES)
        self._values = memoryview(mmap.mmap(self.descriptor, count * _FIGURE_BYTES)).cast("q")

    def __getitem__(self, index: int) -> int:
        return self._values[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._values[index] = value

    def total(self, first: int) -> int:
        """The sum from this one on."""
        return sum(self._values[first:])


class Room:
    """Whether there is room: on the disk of a folder above a floor, and in memory.

    The floor is never more than a twentieth of the disk, so that a small one can be used at all. A change is a line in
    the log of whichever process sees it first.
    """

    REFUSED, FIRST = 0, 1  # figures: whether the floor was reached; what the first process holds in memory

    def __init__(self, folder: Path, floor_bytes: int, figures: Figures | None = None, process: int = 0) -> None:
        self._folder = folder
        self._floor_bytes = floor_bytes
        self._figures = Figures(Room.FIRST + 1) if figures is None else figures
        self._own = Room.FIRST + process
        self._arriving: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    @property
    def free_bytes(self) -> int:
        """What can still be written."""
        return self._measured()[0]

    @property
    def floor_bytes(self) -> int:
        """What has to stay free."""
        return self._measured()[1]

    def has(self, size: int = 0) -> bool:
        """Whether so many bytes can come and leave the floor free."""
        free, floor = self._measured()
        there = free - size >= floor
        with self._lock:
            if there is bool(self._figures[Room.REFUSED]):
                self._figures[Room.REFUSED] = not there
                log.log(
                    logging.INFO if there else logging.ERROR,
                    "intake_%s free_mb=%d floor_mb=%d",
                    *("resumed" if there else "refused", free // MEGABYTE, floor // MEGABYTE),
                )
        return there

    def arriving(self, who: Hashable, size: int) -> int:
        """`who` holds so many bytes in memory of what it is being sent; returns what all of the node's hold."""
        with self._lock:
            self._arriving[who] = size
            self._figures[self._own] = sum(self._arriving.values())
            return self._figures.total(Room.FIRST)

    def arrived(self, who: Hashable) -> None:
        """It holds nothing in memory any more."""
        with self._lock:
            if self._arriving.pop(who, 0):
                self._figures[self._own] = sum(self._arriving.values())

    def _measured(self) -> tuple[int, int]:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize, min(self._floor_bytes, disk.f_blocks * disk.f_frsize // 20)
