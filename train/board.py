"""Epochs as a table and as TensorBoard shows them: written once an epoch, so that no step waits for it."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from qcnode.errors import ConfigError


def require_board() -> None:
    """Raises ConfigError where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ConfigError("--tensorboard needs TensorBoard; install it with `pip install qcnode[tables]`.") from error


def log_epoch(figures: Mapping[str, float], folder: Path) -> None:
    """Add an epoch's figures, its number (`epoch`) among them, to the folder's log; what is no number is left out."""
    from torch.utils.tensorboard import SummaryWriter

    epoch = int(figures["epoch"])
    with SummaryWriter(str(folder)) as writer:
        for name, value in figures.items():
            if name != "epoch" and math.isfinite(value):
                writer.add_scalar(name, value, epoch)


def write_curve(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """A member's epochs so far, one a row, as CSV."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, history[0])
        table.writeheader()
        table.writerows(history)
