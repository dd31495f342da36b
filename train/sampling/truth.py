"""What a scan was simulated with at every place, as a third task while training (qcnode/ensemble/tissue.py).

`simulate` writes it beside each scan. Scans that were rated by people have none, and do not contribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache as once
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qcnode.artifacts import Artifact
from qcnode.ensemble.tissue import PLACE, REGION, SHARES
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import INPUT_SHAPE, placed
from qcnode.imaging.volume import Volume, volume_from_nifti
from train.config import FitConfig
from train.dataset import Scan, cached, cached_input
from train.sampling.fading import Anew, Plain, Tissues, can_be_plain, plain_of
from train.sampling.measures import MEASURES
from train.simulate import TRUTH_STEPS

MAPS = SHARES + 1  # in the cache: shares, then the logarithm of the shading
TRUTH_SHAPE = (MAPS, INPUT_SHAPE[0], INPUT_SHAPE[1] // PLACE, INPUT_SHAPE[2] // PLACE)
_UNITS = np.array([127, 127, 127, 50], np.float32)[:, None, None, None]  # in the cache, of a share and of a logarithm
_CONTRAST_UNIT = MEASURES[Artifact.CONTRAST]["contrast_seen"]
_AROUND = 0.1  # what a place outside the brain counts, beside one inside
# Of the shading's and the contrast's Huber loss: where its square ends, and what it weighs beside the shares'.
_HUBER = ((0.1, 4.0), (0.3, 0.5))


class Maps(NamedTuple):
    """What one scan was made with. shares: (SHARES, slice, row, column) of places.

    regions: (map, slice, row, column), as its encoder draws them; not a number where they are not known.
    """

    shares: NDArray[np.float32]
    regions: NDArray[np.float32]


class Truth(NamedTuple):
    """Of a batch. shares: (batch, SHARES, …), regions: (batch, map, …), as `Maps`; known: (batch,), who has any."""

    shares: Tensor
    regions: Tensor
    known: Tensor


def cached_truth(scan: Scan, cache: Path) -> Tissues | None:
    """The scan's truth on the network input's grid, mapped from the cache; None where it has none.

    Raises ConfigError for maps of another grid.
    """
    if not scan.truth_path.is_file():
        return None

    @once
    def voxels() -> NDArray[np.float32]:
        mask = volume_from_nifti(scan.mask_path)
        maps = [(mask.array != 0).astype(np.float32), *_maps_of(scan.truth_path, mask)]
        return np.stack([placed(replace(mask, array=each)) for each in maps])

    def places() -> NDArray[np.int8]:
        steps: NDArray[np.int8] = np.rint(_means(voxels(), PLACE) * _UNITS).clip(-127, 127).astype(np.int8)
        return steps

    @once
    def plain() -> Plain:
        return plain_of(np.asarray(cached_input(scan, cache), np.float32), voxels())

    maps: NDArray[np.int8] = cached(scan.truth_path, cache, "truth-1", places, TRUTH_SHAPE)
    if not can_be_plain(np.array(scan.labels)):
        return Tissues(maps, None)
    image, tissue = cached(
        scan.truth_path, cache, "plain-1", lambda: np.stack([plain().image, plain().tissue]), (2, *INPUT_SHAPE)
    )
    its = cached(scan.truth_path, cache, "plain-figures-1", lambda: plain().figures, (3,))
    return Tissues(maps, Plain(image, tissue, its))


def cached_truths(scans: Sequence[Scan], cache: Path, config: FitConfig) -> list[Tissues | None]:
    """Every scan's truth, or none at all where the configuration asks for none."""
    weights = (config.of(artifact).truth_weight for artifact in Artifact)
    return [cached_truth(scan, cache) for scan in scans] if any(weights) else []


def widened(truth: NDArray[np.int8]) -> NDArray[np.float32]:
    """Shares, and the logarithm of the shading, of what `cached_truth` gave."""
    return np.asarray(truth / _UNITS, np.float32)


def brain_of_regions(truth: NDArray[np.int8]) -> NDArray[np.float32]:
    """The brain's share of each region: (slice, row, column)."""
    return _means(truth[0] / _UNITS[0], REGION // PLACE)


def of_anew(places: NDArray[np.float32], anew: Anew) -> NDArray[np.float32]:
    """The maps of a scan, of the same slices, on which Contrast was drawn anew."""
    maps = places.copy()
    regions = torch.from_numpy(anew.shading)[:, None]
    maps[SHARES] = F.interpolate(regions, scale_factor=REGION // PLACE, mode="bilinear", align_corners=False)[:, 0]
    return maps


def contrast_maps(places: NDArray[np.float32], contrast: float | None) -> Maps:
    """places: shares and the logarithm of the shading. contrast: as in `train.sampling.measures`, if known."""
    shading = _means(places[SHARES], REGION // PLACE)
    its = np.full_like(shading, np.nan if contrast is None else contrast / _CONTRAST_UNIT)
    return Maps(places[:SHARES], np.stack([shading, its]))


def truth_of(maps: Sequence[Maps | None], device: torch.device) -> Truth:
    """The truths of a batch's scans, zero where there are none."""
    first = next((its for its in maps if its is not None), None)
    shapes = first or Maps(np.zeros((SHARES, 0, 0, 0), np.float32), np.zeros((0, 0, 0, 0), np.float32))
    shares, regions = (np.zeros((len(maps), *each.shape), np.float32) for each in shapes)
    for slot, its in enumerate(maps):
        if its is not None:
            shares[slot], regions[slot] = its
    known = torch.tensor([its is not None for its in maps], device=device)
    return Truth(torch.from_numpy(shares).to(device), torch.from_numpy(regions).to(device), known)


def truth_loss(said: Sequence[Tensor], truth: Truth) -> Tensor:
    """Cross-entropy of the shares, Huber's loss of the maps of regions in the brain.

    said: what passes `TissueUNet.laid`: shares (slice, SHARES, row, column), regions (batch, map, slice, …), and which
    of these slices there are (batch, slice). The shares count a little around the brain, too. The mean over the slices
    of scans that have a truth; else 0.
    """
    shares, regions, there = said
    known = truth.known[there.nonzero()[:, 0]]
    if not known.any():
        return shares.sum() * 0 + regions.sum() * 0
    target = truth.shares.transpose(1, 2)[there][known]  # (slice, SHARES, row, column)
    wanted = truth.regions.transpose(1, 2)[there][known]  # (slice, map, row, column)
    shares, seen = shares[known], regions.transpose(1, 2)[there][known]
    near = target[:, :1] + _AROUND
    crossed = F.binary_cross_entropy_with_logits(shares, target, reduction="none")
    loss = (near * crossed).sum() / near.sum()
    brain = F.avg_pool2d(target[:, 0], REGION // PLACE)
    for map_, (square_to, weight) in enumerate(_HUBER):
        told = brain * ~wanted[:, map_].isnan()
        off = F.smooth_l1_loss(seen[:, map_], wanted[:, map_].nan_to_num(), beta=square_to, reduction="none")
        loss = loss + weight * (told * off).sum() / told.sum().clamp_min(1)
    return loss


def _maps_of(path: Path, mask: Volume) -> NDArray[np.float32]:
    """The maps in a file (x, y, z, map), laid as the mask's array is: (map, slice, row, column)."""
    image = nibabel.load(path)
    maps, affine = np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64)
    # For each axis of the mask the file's that points its way.
    order = np.abs(affine[:3, :3, None] - mask.affine[:3, None, :3]).sum(0).argmin(0)
    if maps.ndim != 4 or maps.shape[3] != MAPS - 1:
        raise ConfigError(f"it does not hold {MAPS - 1} maps; simulate the scan again.")
    laid = maps.transpose(3, *order)
    if laid.shape[1:] != mask.array.shape or not np.allclose(affine[:, [*order, 3]], mask.affine, atol=1e-2):
        raise ConfigError("its voxels are not those of the scan's mask; simulate the scan again.")
    return np.asarray(laid, np.float32) / np.float32(TRUTH_STEPS)


def _means(maps: NDArray[np.float32], voxels: int) -> NDArray[np.float32]:
    """Means (…, row, column) over so many voxels of a slice each way."""
    *others, rows, columns = maps.shape
    split = maps.reshape(*others, rows // voxels, voxels, columns // voxels, voxels)
    return np.asarray(split.mean((-3, -1)), np.float32)
