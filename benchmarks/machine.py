"""The machine that a figure was taken on, and how busy it was with other things."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path


def described() -> str:
    """One line: processor, cores, memory, disk's file system, Python, and the load average before we begin."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {_file_system()}; "
        f"Python {platform.python_version()}; load average {load} before, nice {os.nice(0)}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system() -> str:
    """The type of what temporary folders lie on."""
    folder = tempfile.gettempdir()
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    here = [(len(place), kind) for place, kind in mounts if folder.startswith(place.rstrip("/") or "/")]
    return max(here)[1] if here else "unknown disk"
