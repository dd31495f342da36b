"""Grades low-field brain MRI while the child is still on the table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qcnode.verdict import Assessment

__version__ = "0.1.0"
__all__ = ["__version__", "assess"]


def assess(paths: Iterable[str | Path]) -> Assessment:
    """Grade the one series that these DICOM files hold, with the shipped ensemble and the default policy."""
    from qcnode.assess import assess_files  # torch loads here, not with the package

    return assess_files([Path(path) for path in paths])
