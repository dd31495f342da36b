"""Room for what arrives, as several processes see it together."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qcnode.intake.association import Association
from qcnode.intake.dimse import Element, Field, Request
from qcnode.intake.room import MEGABYTE, Figures, Room
from qcnode.intake.spool import Spool
from qcnode.intake.storing import OUT_OF_RESOURCES, Storing

STORE = Request({Element.COMMAND_FIELD: struct.pack("<H", Field.C_STORE)})


class Disk:
    """What statvfs says of a disk of 100 GB."""

    f_frsize, f_blocks, f_bavail = 1000, 10**8, 0

    def __init__(self, free_mb: int) -> None:
        self.f_bavail = free_mb * 1000


class Peer:
    """Stands for an association: all that is asked is whether it is the same."""

    calling_ae = "SWOOP1"


def storing(room: Room, folder: Path, maximum_mb: int) -> Storing:
    return Storing(Spool(folder), room, maximum_mb * MEGABYTE, lambda association, received: None)


def refusal(one: Storing, peer: Association, size_mb: float) -> int | None:
    answer = one.refuse(peer, STORE, int(size_mb * MEGABYTE))
    return None if answer is None else answer.status


@pytest.fixture
def peers() -> Any:
    return [Peer() for _ in range(4)]


def test_figures_are_the_same_in_another_process() -> None:
    ours = Figures(4)
    program = (
        "import sys; from qcnode.intake.room import Figures; theirs = Figures(4, int(sys.argv[1]));"
        "theirs[3] = theirs[1] + 40"
    )
    ours[1] = 2
    command = [sys.executable, "-c", program, str(ours.descriptor)]
    subprocess.run(command, pass_fds=[ours.descriptor], check=True)
    assert [ours[index] for index in range(4)] == [0, 2, 0, 42]
    assert ours.total(1) == 44


def test_memory_is_bounded_for_all_processes_together(tmp_path: Path, peers: Any) -> None:
    figures = Figures(Room.FIRST + 2)
    first, second = (storing(Room(tmp_path, 0, figures, number), tmp_path, 10) for number in range(2))
    assert refusal(first, peers[0], 9) is None
    assert refusal(second, peers[1], 9) is None
    assert refusal(second, peers[2], 3) == OUT_OF_RESOURCES
    assert refusal(second, peers[1], 10) is None, "the others go on"
    first.forget(peers[0])
    assert refusal(second, peers[2], 3) is None


def test_the_floor_counts_what_other_processes_are_receiving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    figures, disk = Figures(Room.FIRST + 2), Disk(free_mb=520)
    monkeypatch.setattr("qcnode.intake.room.os.statvfs", lambda folder: disk)
    caplog.set_level("INFO")
    first, second = (storing(Room(tmp_path, 500 * MEGABYTE, figures, n), tmp_path, 100) for n in range(2))
    assert refusal(first, peers[0], 15) is None
    assert refusal(second, peers[1], 15) == OUT_OF_RESOURCES, "either would fit, both do not"
    assert refusal(first, peers[0], 16) is None
    first.forget(peers[0])
    assert refusal(second, peers[1], 15) is None
    assert caplog.text.count("intake_refused") == caplog.text.count("intake_resumed") == 1


def test_a_change_is_one_line_whoever_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    figures, disk = Figures(Room.FIRST + 2), Disk(free_mb=400)
    monkeypatch.setattr("qcnode.intake.room.os.statvfs", lambda folder: disk)
    caplog.set_level("INFO")
    rooms = [Room(tmp_path, 500 * MEGABYTE, figures, number) for number in range(2)]
    assert [room.has() for room in rooms] == [False, False]
    disk.f_bavail = 600_000
    assert [room.has() for room in reversed(rooms)] == [True, True]
    assert [record.getMessage().split()[0] for record in caplog.records] == ["intake_refused", "intake_resumed"]


def test_figures_give_their_memory_back() -> None:
    descriptor = Figures(2).descriptor
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
