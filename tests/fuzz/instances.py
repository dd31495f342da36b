"""What the file targets start from: a small scan as slices, as one enhanced object, and compressed."""

from __future__ import annotations

import random
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from mutation import ELEMENTS, mutated
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from qcnode.artifacts import Plane
from qcnode.imaging import phantom
from qcnode.imaging.swoop import classic_series, swoop_series, to_bytes
from qcnode.imaging.volume import Volume

_COARSER = (5, 3, 3)  # 8 slices of 49 by 40 pixels; JPEG 2000 refuses less than 32


@cache
def series() -> tuple[tuple[bytes, ...], ...]:
    """Series of Part 10 files, one for each way to encode the scan."""
    head = phantom.head(np.random.default_rng(9), Plane.AXIAL)
    affine = head.affine.copy()
    affine[:3, :3] *= _COARSER
    small = Volume(np.ascontiguousarray(head.array[tuple(slice(None, None, n) for n in _COARSER)]), affine)
    draws = np.random.default_rng(10)
    slices = classic_series(small, patient_id="FUZZ", generator=draws)
    enhanced = swoop_series(small, patient_id="FUZZ", generator=draws)
    found = [tuple(map(to_bytes, slices)), (to_bytes(enhanced),)]
    found.append(tuple(_recoded(one, ImplicitVRLittleEndian) for one in slices))
    found.append((_recoded(enhanced, DeflatedExplicitVRLittleEndian),))
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        compressed = dcmread(BytesIO(to_bytes(enhanced)))
        compressed.compress(syntax, generate_instance_uid=False)
        found.append((to_bytes(compressed),))
    return tuple(found)


@cache
def real_series(folder: Path) -> tuple[tuple[bytes, ...], ...]:
    """Real files of less than a megabyte, each as a series of its own."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 1_000_000)
    return tuple((data,) for path in files if (data := path.read_bytes())[128:132] == b"DICM")


def damaged(generator: random.Random, real: Path | None = None) -> tuple[bytes, ...]:
    """One of the series with one of its instances damaged, or all of them in the same way."""
    chosen = list(generator.choice(series() if real is None or generator.random() < 0.5 else real_series(real)))
    if generator.random() < 0.3:
        state = generator.getrandbits(64)
        return tuple(mutated(one, random.Random(state), ELEMENTS) for one in chosen)
    at = generator.randrange(len(chosen))
    chosen[at] = mutated(chosen[at], generator, ELEMENTS)
    return tuple(chosen)


def _recoded(ds: Dataset, syntax: str) -> bytes:
    copy = dcmread(BytesIO(to_bytes(ds)))
    copy.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    copy.save_as(buffer, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return buffer.getvalue()
