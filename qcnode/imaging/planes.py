"""The sections of a volume side by side, as one picture: what a person sees beside the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_GAP_PIXELS = 6


def planes(sections: Sequence[NDArray[np.uint8]]) -> bytes:
    """The sections, (row, column) or (row, column, colour), from left to right at one scale, as PNG on black."""
    width = sum(section.shape[1] for section in sections) + _GAP_PIXELS * (len(sections) - 1)
    picture = Image.new("RGB", (width, max(section.shape[0] for section in sections)))
    left = 0
    for section in sections:
        picture.paste(Image.fromarray(section).convert("RGB"), (left, (picture.height - section.shape[0]) // 2))
        left += section.shape[1] + _GAP_PIXELS
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
