"""Heads bent anew without end: scans as coarse as an encoder that looks at the shape of heads sees them.

A few thousand scans are learned by heart, bends and heads alike. So heads of some subjects, averaged to half a block,
are kept in several signals, and every batch takes some of them in shapes of nobody (train/simulation/shapes.py), bends
each mildly, severely and not, and renders what else a scan has (train/simulation/renders.py), in some 40 ms of a core
a scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.atlas import on_atlas
from train.simulate import ADULT_LENGTH_MM, choose
from train.simulation.brains import Source, anatomy
from train.simulation.contrasts import WEIGHTING_SHARES, WEIGHTINGS, Head, head
from train.simulation.draws import draw, draw_levels
from train.simulation.renders import COARSE, rendered
from train.simulation.scans import clean_scan
from train.simulation.severity import OutOfContract
from train.simulation.shapes import Shapes, compared, registered, reshaped
from train.simulation.upright import frame_of

HEADS, SCANS = 4, 12  # in a batch, and of each of its heads: of every severity as many

_SPACING_MM = 3.2  # half a block
_SIGNALS = 6  # kept of a head
_POINTS = 700  # of its brain, at which displacement and strain are measured
_RESHAPED_SHARE = 0.8  # of heads
_WRONG_SHARE = 0.1  # of scans laid on the atlas as if they were of another plane
_TRIES = 4  # at a draw whose severities cannot be reached


class Coarse(NamedTuple):
    """A head averaged over cubes of voxels, as `Head` has it but in half precision, and its brain's frame."""

    channels: NDArray[np.float16]
    spacing_mm: NDArray[np.float64]
    centre: NDArray[np.float64]
    brain_points_mm: NDArray[np.float32]
    frame: tuple[float, NDArray[np.float64]]

    @property
    def head(self) -> Head:
        """It in single precision."""
        channels = torch.from_numpy(self.channels.astype(np.float32))
        return Head(channels, self.spacing_mm, self.centre, self.brain_points_mm)


class Kept(NamedTuple):
    """One source's head in several signals, and how its shape is compared with others'."""

    heads: list[Coarse]
    shares: NDArray[np.float32]


class Batch(NamedTuple):
    """cubes: (scan, SIDE, SIDE, SIDE), heads on the atlas. severities: (scan,), of Distortion.

    sizes: (scan, 2), displacement in mm and strain. is_upright: (scan,), whether the plane was the scan's own.
    """

    cubes: Tensor
    severities: Tensor
    sizes: Tensor
    is_upright: Tensor


_Scan = tuple[Tensor, int, tuple[float, float], bool]  # one of a batch


def kept(source: Source, seed: int) -> Kept:
    """A source's head in signals that are drawn from this seed and its name."""
    generator = np.random.default_rng([seed, *source.name.encode()])
    its = anatomy(source)
    heads = []
    for _ in range(_SIGNALS):
        weighting = str(generator.choice(WEIGHTINGS, p=WEIGHTING_SHARES))
        fine = head(its, weighting, ADULT_LENGTH_MM * float(generator.uniform(0.65, 1.05)), generator)
        heads.append(coarse(fine, frame_of(its.brain), generator))
    return Kept(heads, compared(its))


def coarse(fine: Head, frame: tuple[float, NDArray[np.float64]], generator: np.random.Generator) -> Coarse:
    """The head averaged to about half a block. frame: its brain's, in its own indices."""
    by = max(1, round(_SPACING_MM / float(fine.spacing_mm.mean())))
    padding = [end for size in reversed(fine.channels.shape[1:]) for end in (0, -size % by)]
    channels = F.avg_pool3d(F.pad(fine.channels, padding)[None], by)[0].numpy().astype(np.float16)
    points = fine.brain_points_mm[generator.integers(len(fine.brain_points_mm), size=_POINTS)]
    step, middle = frame
    return Coarse(channels, fine.spacing_mm * by, _index(fine.centre, by), points, (step / by, _index(middle, by)))


def _index(fine: NDArray[np.float64], by: int) -> NDArray[np.float64]:
    return np.asarray((fine + 0.5) / by - 0.5)


class BentHeads(Dataset[Batch]):
    """Batches by number; each is the same whenever it is asked for, and none is another's.

    found: the sources whose heads these are. mapped: over the heads, by several processes if need be.
    """

    def __init__(
        self,
        found: Sequence[Source],
        seed: int,
        batches: int,
        mapped: Callable[..., Iterable[Kept]] = map,
    ) -> None:
        self._found, self._seed, self._batches = found, seed, batches
        self._kept = list(mapped(partial(kept, seed=seed), found))
        self._shapes: Shapes | None = None

    def with_shapes(self, mapped: Callable[..., Iterable[NDArray[np.float32]]] = map) -> BentHeads:
        """Its heads in shapes that are drawn from all of theirs."""
        fields = registered([each.shares for each in self._kept], mapped)
        self._shapes = Shapes(fields, {source.name: index for index, source in enumerate(self._found)})
        return self

    def __len__(self) -> int:
        return self._batches

    def __getitem__(self, number: int) -> Batch:
        generator = np.random.default_rng([self._seed, number])
        scans: list[_Scan] = []
        while not scans:  # none, where nothing that is drawn of these heads can be reached
            for _ in range(HEADS):
                its = self._head(generator)
                tried = [_scan(its, Severity(scan % len(Severity)), generator) for scan in range(SCANS)]
                scans += [made for made in tried if made is not None]
        cubes, severities, sizes, is_upright = zip(*scans, strict=True)
        return Batch(torch.stack(cubes), torch.tensor(severities), torch.tensor(sizes), torch.tensor(is_upright))

    def _head(self, generator: np.random.Generator) -> Head:
        source = choose(self._found, generator)
        index = self._found.index(source)
        found = self._kept[index].heads[generator.integers(_SIGNALS)]
        its = found.head
        if self._shapes is None or generator.random() >= _RESHAPED_SHARE:
            return its
        return reshaped(its, found.frame, self._shapes.of(source.name), self._shapes.drawn(generator), _SPACING_MM)


def _scan(its: Head, severity: Severity, generator: np.random.Generator) -> _Scan | None:
    """A scan of the head with Distortion of this severity, and other artifacts as `simulate` draws them."""
    for _ in range(_TRIES):
        plane = list(Plane)[generator.integers(len(Plane))]
        try:
            drawn = draw(generator, draw_levels(generator) | {Artifact.DISTORTION: severity})
            made = rendered(clean_scan(its, plane, generator), drawn, generator, COARSE, has_fields=False)
        except OutOfContract:
            continue
        is_upright = bool(generator.random() >= _WRONG_SHARE)
        as_if = plane if is_upright else [p for p in Plane if p != plane][generator.integers(len(Plane) - 1)]
        cube = on_atlas(torch.from_numpy(made.blocks.astype(np.float32)), as_if).half()
        if generator.random() < 0.5:
            cube = cube.flip(0)
        sizes = made.measured["displacement_mm"], made.measured["strain"]
        return cube, int(severity), sizes, is_upright
    return None
