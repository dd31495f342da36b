"""Whose series it is, for a site that turns that on: read from the spool's headers, and kept in memory alone."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydicom import dcmread

from qcnode.imaging.stack import UNREADABLE

_READ = ["SpecificCharacterSet", "PatientName", "PatientID", "SeriesDescription"]


class Names:
    """What a person calls a series; empty where its images have left the spool, or their header cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._spool = folder / "spool"
        self._read = lru_cache(maxsize=1000)(_label)

    def of(self, series_uid: str) -> str:
        """Name, identifier and description as the scanner sent them, whatever text they hold."""
        file = next(iter((self._spool / series_uid).glob("*.dcm")), None)
        return self._read(file) if file is not None else ""


def _label(file: Path) -> str:
    try:
        header = dcmread(file, stop_before_pixels=True, specific_tags=[*_READ])
        words = [str(header.get(keyword) or "").strip() for keyword in _READ[1:]]
    except UNREADABLE:
        return ""
    return " · ".join(filter(None, words))
