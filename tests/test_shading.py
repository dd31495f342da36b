"""Patterns of shading are what they are called, and any of them reaches any ratio."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from train.simulation import physics, shading

KINDS = get_args(shading.Kind)
SHAPE = (20, 40, 36)


def _ball(radius: float = 0.7) -> shading.Array:
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    return (sum(axis**2 for axis in axes) < radius**2).astype(np.float32)


def _field(kind: shading.Kind, seed: int, ratio: float = 3.0) -> shading.Array:
    return physics.shading(shading.drawn(kind, _ball(), np.random.default_rng(seed)), _ball(), ratio)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [1.0, 1.3, 2.2, 5.5])
def test_any_ratio_is_reached_in_the_brain(kind: shading.Kind, ratio: float) -> None:
    field = _field(kind, 1, ratio)
    assert physics.shading_ratio(field, _ball()) == pytest.approx(ratio, rel=1e-4)
    assert field.min() > 0
    if ratio == 1:
        np.testing.assert_array_equal(field, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_is_one_pattern(kind: shading.Kind) -> None:
    np.testing.assert_array_equal(_field(kind, 2), _field(kind, 2))
    assert np.abs(_field(kind, 2) - _field(kind, 3)).max() > 0.1


def test_the_middle_is_darker_or_brighter_than_the_rim() -> None:
    middle, rim = _ball(0.2) > 0.5, (_ball() > 0.5) & (_ball(0.6) < 0.5)
    ratios = [field[middle].mean() / field[rim].mean() for field in (_field("middle", seed) for seed in range(10))]
    assert all(ratio > 1.4 or ratio < 1 / 1.4 for ratio in ratios)
    assert min(ratios) < 1 < max(ratios)


def test_a_coil_at_one_side_sees_that_side() -> None:
    inside = np.argwhere(_ball() > 0.5)
    for seed in range(6):
        values = _field("one-sided", seed)[_ball() > 0.5]
        bright, dark = (inside[values.argsort()[chosen]].mean(axis=0) for chosen in (slice(-300, None), slice(300)))
        across = (bright - dark) / np.array(SHAPE)
        assert np.linalg.norm(across) > 0.35, "brightest and darkest are at opposite rims"
