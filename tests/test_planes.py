"""The picture of three planes: the sections in their order, at one scale, none cut."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from qcnode.imaging.planes import planes


def opened(*sections: np.ndarray) -> np.ndarray:
    with Image.open(BytesIO(planes(sections))) as picture:
        return np.asarray(picture)


def test_the_sections_stand_side_by_side_in_their_order_each_as_it_is() -> None:
    generator = np.random.default_rng(0)
    sections = [generator.integers(1, 255, shape, np.uint8) for shape in ((40, 30), (20, 30), (21, 44, 3))]
    picture = opened(*sections)
    assert picture.shape[0] == 40
    left = 0
    for section in sections:
        shown = picture[:, left : left + section.shape[1]]
        top = (40 - section.shape[0]) // 2
        grey = section if section.ndim == 3 else np.stack([section] * 3, axis=2)
        np.testing.assert_array_equal(shown[top : top + section.shape[0]], grey)
        assert not shown[:top].any()
        left += section.shape[1] + (picture.shape[1] - 104) // 2
    assert picture.shape[1] > 104, "with a gap between them"


def test_one_section_is_itself() -> None:
    np.testing.assert_array_equal(opened(np.full((3, 5), 9, np.uint8)), np.full((3, 5, 3), 9))
