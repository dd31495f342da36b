"""A bar with the time left for long work, on standard error, so that standard output stays a script's."""

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


def _is_another() -> bool:
    """Whether this is one of torchrun's processes, but not the first."""
    return os.environ.get("RANK", "0") != "0"
