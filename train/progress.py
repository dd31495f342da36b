"""How long work will still take: a bar on standard error, so that standard output stays a script's; a time in logs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")


def progress(items: Sequence[T], name: str) -> Iterable[T]:
    """The items one by one, with a bar while there are any; nothing is drawn where standard error is no terminal."""
    console = Console(stderr=True)
    return track(items, name, console=console, disable=not items or not console.is_terminal or _is_another())


class Pace:
    """How long the epochs that are left will take: each the mean of those that this process trained.

    epochs: how many there are in all. They are numbered from 1; 0 is before the first step, and tells nothing of them.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.seconds: list[float] = []

    def left(self, epoch: int, seconds: float) -> str:
        """How long is left after this epoch, which took so many seconds, as `00:12:30`; `?` where none was trained."""
        if epoch:
            self.seconds.append(seconds)
        if epoch < self.epochs and not self.seconds:
            return "?"
        minutes, rest = divmod(round(sum(self.seconds) / max(len(self.seconds), 1) * (self.epochs - epoch)), 60)
        return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"


def _is_another() -> bool:
    """Whether this is one of torchrun's processes, but not the first."""
    return os.environ.get("RANK", "0") != "0"
