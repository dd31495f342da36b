"""Heads in shapes that are not their own: registration undoes a bend, and a head in its own shape is itself."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from qcnode.errors import ConfigError
from train.simulation.brains import Anatomy, anatomy, phantoms
from train.simulation.contrasts import Head, head
from train.simulation.renders import read_renders, render_corpus
from train.simulation.shapes import Shapes, compared, registered, reshaped
from train.simulation.upright import frame_of

HEADS = [anatomy(source) for source in phantoms(4)]


@lru_cache
def _shapes() -> Shapes:
    torch.set_num_threads(1)
    fields = registered([compared(each) for each in HEADS])
    return Shapes(fields, {each.source.name: index for index, each in enumerate(HEADS)})


@lru_cache
def _head() -> Head:
    return head(HEADS[0], "T2w", 165.0, np.random.default_rng(1))


def _own() -> NDArray[np.float32]:
    return _shapes().of(HEADS[0].source.name)


def _proportions(its: Head) -> NDArray[np.float64]:
    """Of the brain's extent along x and z, relative to y."""
    extent = np.ptp(np.argwhere(its.channels[1].numpy() > 0.5), axis=0) * its.spacing_mm
    return np.asarray(extent[[0, 2]] / extent[1])


def _likeness(one: Head, other: Head) -> float:
    """Dice of two brains, centre upon centre, on 3 mm."""
    along = np.arange(-90, 91, 3.0)
    places = np.stack(np.meshgrid(along, along, along, indexing="ij"))
    seen = []
    for its in (one, other):
        index = places / its.spacing_mm[:, None, None, None] + its.centre[:, None, None, None]
        seen.append(ndimage.map_coordinates(its.channels[1].numpy(), index, order=1) > 0.5)
    return float(2 * (seen[0] & seen[1]).sum() / (seen[0].sum() + seen[1].sum()))


def test_a_head_in_its_own_shape_is_itself() -> None:
    same = reshaped(_head(), frame_of(HEADS[0].brain), _own(), _own())
    assert _likeness(_head(), same) > 0.96
    np.testing.assert_allclose(_proportions(same), _proportions(_head()), rtol=0.04)


def test_a_head_keeps_its_length_and_gets_the_proportions_of_the_shape_it_is_given() -> None:
    wide = _own().copy()
    along = np.linspace(-26.0, 26.0, wide.shape[1], dtype=np.float32)
    wide[0] += 0.2 * along[:, None, None]  # a fifth wider
    its = reshaped(_head(), frame_of(HEADS[0].brain), _own(), wide)
    assert _proportions(its)[0] / _proportions(_head())[0] == pytest.approx(1.2, rel=0.05)
    length = np.ptp(np.argwhere(its.channels[1].numpy() > 0.5)[:, 1]) * its.spacing_mm[1]
    assert length == pytest.approx(165.0, rel=0.03)
    assert np.abs(its.brain_points_mm).max(axis=0)[1] == pytest.approx(165.0 / 2, rel=0.03)


def test_registration_finds_a_head_that_was_made_wider() -> None:
    its = HEADS[1]
    columns = np.rint(np.arange(0, len(its.codes) - 1, 1 / 1.2)).astype(int)
    wide = Anatomy(its.source, its.codes[columns], its.brain[columns], its.tissue[columns], None, None, its.spacing_mm)
    shares = np.stack([compared(its), compared(wide)])
    fields = registered(list(shares))
    # Of equal volumes one is 1.2 ** (2 / 3) = 1.13 times as wide, and 1.2 ** (-1 / 3) = .94 times as long.
    slopes = [np.diff(fields[1] - fields[0], axis=1 + axis)[axis, 4:-4, 5:-5, 5:-5].mean() * 14 / 52 for axis in (0, 1)]
    assert slopes[0] == pytest.approx(0.13, abs=0.05)
    assert slopes[1] == pytest.approx(-0.06, abs=0.04)


def test_shapes_are_drawn_with_the_spread_of_those_they_are_learned_from() -> None:
    generator = np.random.default_rng(3)
    drawn = np.stack([_shapes().drawn(generator) for _ in range(200)])
    learned = _shapes().fields
    assert drawn.std(axis=0).mean() == pytest.approx(learned.std(axis=0, ddof=1).mean(), rel=0.15)
    np.testing.assert_allclose(drawn.mean(axis=0), learned.mean(axis=0), atol=0.35 * learned.std())


def test_where_all_heads_are_alike_no_other_shape_is_drawn() -> None:
    alike = Shapes(np.repeat(_shapes().fields[:1], 3, axis=0), {})
    np.testing.assert_allclose(alike.drawn(np.random.default_rng(1)), alike.fields[0], atol=1e-6)


def test_renders_are_of_the_subjects_named_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.simulation.renders.sources", lambda _: [])
    render_corpus(tmp_path, tmp_path / "out", 6, 1, subjects=["LISA_1001", "LISA_1003"], workers=1)
    assert {scan.subject for scan in read_renders(tmp_path / "out").scans} <= {"LISA_1001", "LISA_1003"}
    with pytest.raises(ConfigError, match="too few of these subjects"):
        render_corpus(tmp_path, tmp_path / "none", 6, 1, subjects=["LISA_1001"], workers=1)
