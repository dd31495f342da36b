"""Volume → NIfTI: what a viewer or a notebook opens."""

from __future__ import annotations

import gzip

import nibabel
import numpy as np

from qcnode.imaging.volume import Volume

_WHOLE = np.iinfo(np.int16)


def nifti(volume: Volume) -> bytes:
    """The volume as a gzipped NIfTI-1 file: the voxels and their place in the scanner, no text and no date.

    Nothing of a DICOM header is in it, but the head's surface is: a face can be drawn from it.
    """
    array = volume.array.transpose(2, 1, 0)  # NIfTI names the column first
    if _WHOLE.min <= array.min() and array.max() <= _WHOLE.max and np.array_equal(array, np.rint(array)):
        array = array.astype(np.int16)
    image = nibabel.Nifti1Image(array, None)
    affine = volume.affine[:, [2, 1, 0, 3]]
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    data: bytes = image.to_bytes()
    return gzip.compress(data, compresslevel=4, mtime=0)
