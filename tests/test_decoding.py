"""One frame's pixels: each encoding gives the same, and what is damaged or harmful raises before it costs anything."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from qcnode.imaging.decoding import decoded_frame

FRAMES = np.random.default_rng(3).integers(0, 4096, (3, 40, 48), dtype=np.uint16)
COMPRESSED = (RLELossless, JPEGLSLossless, JPEG2000Lossless)


def encoded(syntax: str = ExplicitVRLittleEndian) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3"
    ds.NumberOfFrames, ds.Rows, ds.Columns = FRAMES.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelData = FRAMES.tobytes()
    ds["PixelData"].VR = "OW"
    if syntax != ExplicitVRLittleEndian:
        ds.compress(syntax, generate_instance_uid=False)
    return ds


def with_streams(ds: Dataset, change: dict[int, bytes]) -> Dataset:
    """The data set with other code streams for these frames."""
    streams = list(generate_frames(ds.PixelData, number_of_frames=len(FRAMES)))
    ds.PixelData = encapsulate([change.get(index, stream) for index, stream in enumerate(streams)])
    return ds


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, *COMPRESSED], ids=lambda uid: uid.name)
def test_every_encoding_gives_the_same_pixels(syntax: str) -> None:
    ds = encoded(syntax)
    for index, frame in enumerate(FRAMES):
        assert np.array_equal(decoded_frame(ds, index), frame)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_a_code_stream_of_another_size_is_refused_before_it_is_decoded(syntax: str) -> None:
    ds = encoded(syntax)
    [stream, *_] = generate_frames(ds.PixelData, number_of_frames=len(FRAMES))
    huge = stream.replace((40).to_bytes(2, "big") + (48).to_bytes(2, "big"), b"\xff\xff\xff\xff", 1)
    if syntax == JPEG2000Lossless:
        sizes = (48).to_bytes(4, "big") + (40).to_bytes(4, "big")
        huge = stream.replace(sizes, b"\0\0\xff\xff" * 2, 1)
    assert huge != stream
    began = time.process_time()
    with pytest.raises(ValueError, match="another size"):
        decoded_frame(with_streams(ds, {1: huge}), 1)
    assert time.process_time() - began < 0.5
    assert np.array_equal(decoded_frame(ds, 0), FRAMES[0]), "its neighbours are as they were"


def test_a_code_stream_without_its_end_is_refused() -> None:
    ds = encoded(JPEGLSLossless)
    [stream, *_] = generate_frames(ds.PixelData, number_of_frames=len(FRAMES))
    with pytest.raises(ValueError, match="without its end"):
        decoded_frame(with_streams(ds, {0: stream[:-40]}), 0)


@pytest.mark.parametrize("stream", [b"\0\0", b"\xff\xd8", b"\xff\xd8\xff\xff\xff\xff", b"\xff\x4f\xff\x51\0"])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_no_code_stream_at_all_is_refused(syntax: str, stream: bytes) -> None:
    with pytest.raises(ValueError, match="a code stream without"):
        decoded_frame(with_streams(encoded(syntax), {2: stream}), 2)


def test_a_frame_of_no_plausible_size_is_refused() -> None:
    ds = encoded(RLELossless)
    for rows, columns in ((0, 48), (65535, 65535)):
        ds.Rows, ds.Columns = rows, columns
        with pytest.raises(ValueError, match="plausible"):
            decoded_frame(ds, 0)
