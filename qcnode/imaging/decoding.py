"""One frame's pixels, of any transfer syntax: harmful data raises, and neither hangs nor fills the memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000TransferSyntaxes,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEGTransferSyntaxes,
    RLELossless,
)

LARGEST_FRAME = 4096 * 4096  # pixels; what claims more is no MR slice
_SEQUENTIAL = (*JPEGTransferSyntaxes, JPEGLSLossless, JPEGLSNearLossless)  # code streams of JPEG's marker segments
# Decoders that raise on damaged data: pylibjpeg-rle panics on it, and GDCM, which pydicom prefers, ends the process.
_DECODERS = {
    **dict.fromkeys((*JPEGTransferSyntaxes, *JPEG2000TransferSyntaxes), "pylibjpeg"),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), "pyjpegls"),
    RLELossless: "pydicom",
}
_END_OF_IMAGE = b"\xff\xd9"
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # ISO 10918-1 Table B.1; 14495-1 C.1.1


def decoded_frame(dataset: Dataset, index: int) -> NDArray[np.generic]:
    """(row, column), as stored, of the frame with this index from 0; ValueError where it is no frame of grey values."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if not 0 < rows * columns <= LARGEST_FRAME:
        raise ValueError("a frame of no plausible size")
    if syntax in _SEQUENTIAL or syntax in JPEG2000TransferSyntaxes:
        stream = get_frame(dataset.PixelData, index, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
        measure = _size_of_jpeg2000 if syntax in JPEG2000TransferSyntaxes else _size_of_jpeg
        if measure(stream) != (rows, columns):  # decoders make room for what the code stream says
            raise ValueError("a code stream of another size than the data set's")
        if syntax in _SEQUENTIAL and not stream.rstrip(b"\0").endswith(_END_OF_IMAGE):  # CharLS searches on for seconds
            raise ValueError("a code stream without its end")
    decoded = pixel_array(dataset, index=index, decoding_plugin=_DECODERS.get(syntax, ""))
    if decoded.ndim != 2:
        raise ValueError("a frame with more than one sample per pixel")
    return decoded


def _size_of_jpeg(stream: bytes) -> tuple[int, int]:
    """(rows, columns) by the frame header (ISO 10918-1 Section B.2.2; ISO 14495-1 has the same)."""
    at = 2  # behind the start of image
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        if stream[at + 1] == 0xFF:  # fill bytes may stand before a marker
            at += 1
        elif stream[at + 1] in _START_OF_FRAME:
            return int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big")
        else:
            at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise ValueError("a code stream without a frame header")


def _size_of_jpeg2000(stream: bytes) -> tuple[int, int]:
    """(rows, columns) by the SIZ segment, which comes first (ISO 15444-1 Section A.5.1)."""
    start = stream.find(b"\xff\x4f\xff\x51")  # some encoders put the JP2 file's boxes in front of it
    if start < 0 or len(stream) < start + 24:
        raise ValueError("a code stream without its size")
    width, height, left, top = (int.from_bytes(stream[start + at : start + at + 4], "big") for at in (8, 12, 16, 20))
    return height - top, width - left
