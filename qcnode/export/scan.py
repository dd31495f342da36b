"""A spooled series → what may leave: its voxels and where they lie, and a few words that are ours, not the header's."""

from __future__ import annotations

import gzip
import warnings
from dataclasses import dataclass
from datetime import date
from io import BytesIO

import nibabel
import numpy as np
from pydicom import Dataset, dcmread

from qcnode.config import Eligibility
from qcnode.errors import Excluded
from qcnode.imaging.eligibility import contrast
from qcnode.imaging.volume import Volume, volume_from_instances

_FIRST_YEAR = 1980


@dataclass(frozen=True)
class Opened:
    """What export needs of a series.

    identity: whom it shows, to be hashed: by PatientID alone, in one spelling (two patients of one id become one, which
    a split by patient survives; one patient of two ids it would not); without one, the study.
    """

    volume: Volume
    identity: str
    by_patient: bool  # whether the identity is a patient's, and not only a study's
    contrast: str | None
    day: date | None  # of the study; None where the images do not say it


def opened(instances: list[bytes], study_uid: str | None, rules: Eligibility) -> Opened:
    """Excluded where the images say that they have writing burned in; else as `volume_from_instances` raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        headers = [dcmread(BytesIO(data), stop_before_pixels=True) for data in instances]
        if any(_text(header, "BurnedInAnnotation").upper() == "YES" for header in headers):
            raise Excluded("The images say that writing is burned into them.")
        patient = next((text for header in headers if (text := _text(header, "PatientID"))), "").casefold()
        found, day = contrast(headers[0], rules), _day(_text(headers[0], "StudyDate"))
    identity = f"patient {patient}" if patient else f"study {study_uid or ''}"
    return Opened(volume_from_instances(instances), identity, bool(patient), found, day)


def nifti(volume: Volume) -> bytes:
    """The volume as NIfTI-1, gzipped: no text and no date anywhere, and the same bytes each time.

    Its axes are column, row, slice, so that readers that look for slices along the last axis find them there.
    """
    array = volume.array.transpose(2, 1, 0)
    is_whole = np.abs(array).max() <= np.iinfo(np.int16).max and (array == np.rint(array)).all()
    voxels = array.astype(np.int16) if is_whole else array  # packed ten times as fast, and smaller
    image = nibabel.Nifti1Image(voxels, volume.affine[:, [2, 1, 0, 3]])
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _day(text: str) -> date | None:
    """A DA value (PS3.5 Section 6.2); None for what is none, or before there were such images."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.year >= _FIRST_YEAR else None


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip()
