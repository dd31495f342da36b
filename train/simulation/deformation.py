"""Smooth deformations of the head: waves, bumps, a field along one axis, and what grows with the distance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from train.simulation.physics import strain

Points = NDArray[np.float64]  # (n, 3), scanner mm
Kind = Literal["waves", "axis", "bumps", "radial"]
_HALVINGS = 10
_OFF_ISOCENTRE_MM = 15.0  # standard deviation, each way, of the isocentre from the field of view's middle
_LEVELS_OFF = 1.2  # times the brain's farthest point from the isocentre: air beyond it would fold


class Deformation(ABC):
    """A displacement of scanner points, less the shift and the turn that the brain as a whole would suffer.

    brain_mm: points of the brain. largest_mm: of the displacement in it.
    """

    def __init__(self, brain_mm: Points, largest_mm: float) -> None:
        self._centre = brain_mm.mean(axis=0)
        self._scale, self._shift, self._linear = 1.0, np.zeros(3), np.zeros((3, 3))
        self._shift = self(brain_mm).mean(axis=0)
        self._linear = self._taken_away(self.jacobian(brain_mm).mean(axis=0) - np.eye(3))
        self._scale = largest_mm / np.linalg.norm(self(brain_mm), axis=1).max()

    def __call__(self, points: Points) -> Points:
        """The displacement at points, mm."""
        from_centre = points - self._centre
        return np.asarray(self._scale * (self._field(from_centre) - self._shift - from_centre @ self._linear.T))

    def jacobian(self, points: Points) -> NDArray[np.float64]:
        """The deformation's Jacobian (n, 3, 3) at points."""
        return np.asarray(np.eye(3) + self._scale * (self._gradient(points - self._centre) - self._linear))

    @abstractmethod
    def _field(self, from_centre: Points) -> Points:
        """The displacement, before anything is taken away."""

    @abstractmethod
    def _gradient(self, from_centre: Points) -> NDArray[np.float64]:
        """Its derivatives: (n, displacement, place)."""

    def _taken_away(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of the mean gradient, what only turns the brain."""
        return np.asarray((mean - mean.T) / 2)


class Waves(Deformation):
    """A few plane waves. directions, polarisations: (n, 3). phases: (n,)."""

    def __init__(
        self,
        directions: Points,
        polarisations: Points,
        phases: NDArray[np.float64],
        brain_mm: Points,
        wavelength_mm: float,
        largest_mm: float,
    ) -> None:
        self._vectors = directions * (2 * np.pi / wavelength_mm)
        self._amplitudes, self._phases = polarisations, phases
        super().__init__(brain_mm, largest_mm)

    def _field(self, from_centre: Points) -> Points:
        return np.asarray(np.sin(from_centre @ self._vectors.T + self._phases) @ self._amplitudes)

    def _gradient(self, from_centre: Points) -> NDArray[np.float64]:
        slope = np.cos(from_centre @ self._vectors.T + self._phases)
        return np.asarray(np.einsum("nw,wi,wj->nij", slope, self._amplitudes, self._vectors))


class AxisWaves(Waves):
    """Waves that displace along one axis only, as an uneven field does along readout or echo-planar phase encoding.

    Their shear across that axis is taken away: the turn alone would displace along the others.
    """

    def _taken_away(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        axis = self._amplitudes[0] / np.linalg.norm(self._amplitudes[0])
        along = axis @ mean
        return np.outer(axis, along - (along @ axis) * axis)


class Bumps(Deformation):
    """Gaussian bumps of displacement. centres: (n, 3), mm from the brain's. amplitudes: (n, 3)."""

    def __init__(
        self, centres: Points, amplitudes: Points, brain_mm: Points, width_mm: float, largest_mm: float
    ) -> None:
        self._centres, self._amplitudes, self._width = centres, amplitudes, width_mm
        super().__init__(brain_mm, largest_mm)

    def _field(self, from_centre: Points) -> Points:
        return np.asarray(self._heights(from_centre) @ self._amplitudes)

    def _gradient(self, from_centre: Points) -> NDArray[np.float64]:
        away = (self._centres - from_centre[:, None]) / self._width**2
        return np.asarray(np.einsum("nb,bi,nbj->nij", self._heights(from_centre), self._amplitudes, away))

    def _heights(self, from_centre: Points) -> NDArray[np.float64]:
        squares = np.square(from_centre[:, None] - self._centres).sum(axis=2)
        return np.asarray(np.exp(-squares / (2 * self._width**2)))


class Radial(Deformation):
    """Barrel or pincushion, by its sign, about the scanner's isocentre (mm).

    power: of the distance, with which the displacement grows as far as the brain reaches, and little beyond; 3 as the
    gradient coils' first error has it.
    """

    def __init__(
        self, sign: float, isocentre: NDArray[np.float64], brain_mm: Points, power: float, largest_mm: float
    ) -> None:
        self._origin = isocentre - brain_mm.mean(axis=0)
        self._sign, self._power = sign, power
        self._unit = float(np.linalg.norm(brain_mm - isocentre, axis=1).max())
        super().__init__(brain_mm, largest_mm)

    def _field(self, from_centre: Points) -> Points:
        out, distance, level = self._out(from_centre)
        return np.asarray(self._sign * distance ** (self._power - 1) * level * out)

    def _gradient(self, from_centre: Points) -> NDArray[np.float64]:
        out, distance, level = self._out(from_centre)
        across = distance ** (self._power - 1) * level
        along = self._power * distance ** (self._power - 1) * level**3
        outer = (out[:, :, None] * out[:, None]) / distance[..., None] ** 2
        return np.asarray(
            self._sign * (across[..., None] * (np.eye(3) - outer) + along[..., None] * outer) / self._unit
        )

    def _out(self, from_centre: Points) -> tuple[Points, NDArray[np.float64], NDArray[np.float64]]:
        """Places from the origin and distances in units of the brain's farthest, and what is left of the growth."""
        out = (from_centre - self._origin) / self._unit
        distance = np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
        return out, distance, (1 + (distance / _LEVELS_OFF) ** (2 * self._power)) ** -0.5


def drawn(
    kind: Kind,
    brain_mm: Points,
    largest_mm: float,
    strained: float,
    in_plane: NDArray[np.float64],
    generator: np.random.Generator,
) -> Deformation:
    """The deformation of this kind and displacement whose extent gives this strain, or the nearest that it can give.

    in_plane: (2, 3), the directions along which a field displaces.
    """
    made, extents = _family(kind, brain_mm, in_plane, generator)
    few = brain_mm[:600]
    sharp, mild = np.log(extents)
    for _ in range(_HALVINGS):
        middle = (sharp + mild) / 2
        its = strain(made(few, float(np.exp(middle)), largest_mm).jacobian(few))
        sharp, mild = (sharp, middle) if its < strained else (middle, mild)
    return made(brain_mm, float(np.exp((sharp + mild) / 2)), largest_mm)


def _family(
    kind: Kind, brain_mm: Points, in_plane: NDArray[np.float64], generator: np.random.Generator
) -> tuple[Callable[[Points, float, float], Deformation], tuple[float, float]]:
    """Deformations of one draw by points of the brain, extent and displacement; the extents, of most strain first."""
    if kind == "bumps":
        count = int(generator.integers(1, 5))
        amplitudes = generator.standard_normal((count, 3))
        centres = brain_mm[generator.integers(len(brain_mm), size=count)] - brain_mm.mean(axis=0)
        return lambda points, width, most: Bumps(centres, amplitudes, points, width, most), (10.0, 200.0)
    if kind == "radial":
        sign, isocentre = float(generator.choice([-1.0, 1.0])), generator.normal(0, _OFF_ISOCENTRE_MM, 3)
        return lambda points, slowness, most: Radial(sign, isocentre, points, 1 / slowness, most), (1 / 5.0, 1 / 1.5)
    directions, polarisations = generator.standard_normal((2, 4, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    phases = generator.uniform(0, 2 * np.pi, 4)
    if kind == "waves":
        return lambda points, wavelength, most: Waves(directions, polarisations, phases, points, wavelength, most), (
            40.0,
            900.0,
        )
    alone = polarisations[:, :1] * in_plane[generator.integers(2)]
    return lambda points, wavelength, most: AxisWaves(directions, alone, phases, points, wavelength, most), (
        40.0,
        900.0,
    )
