"""What the page may ask of the node that it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qcnode.config import Settings
from qcnode.intake.listener import Listener


@dataclass(frozen=True)
class Running:
    """The parts of a running node that the page looks at; all else it reads in the ledger."""

    settings: Settings
    listener: Listener
    ensemble: Callable[[], str | None]  # the id of what the grading process has loaded; None until it has
    wake: Callable[[], None]  # what is due is looked for at once
    shadow: str | None = None  # the id of the weights on trial
