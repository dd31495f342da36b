"""Which scans `qcnode export` takes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line names the choices, and does not open the ledger for that
    from qcnode.ledger.ratings import Rated


class Only(StrEnum):
    """Which scans are exported."""

    RATED = "rated"  # those that somebody confirmed or corrected
    CORRECTED = "corrected"  # of them, those where somebody differs from the machine
    CONFIRMED = "confirmed"  # of them, those where everybody agrees with it
    ALL = "all"  # also those that only the machine graded: images without labels, for pre-training

    def takes(self, scan: Rated) -> bool:
        """Whether it is one of them."""
        differs = any(rating.corrected for rating in scan.ratings)
        return self is Only.ALL or bool(scan.ratings and self is not (Only.CONFIRMED if differs else Only.CORRECTED))
