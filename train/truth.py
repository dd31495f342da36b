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
from train.fading import Anew, Plain, Tissues, can_be_plain, plain_of
from train.measures import MEASURES
from train.simulate import TRUTH_STEPS

MAPS = SHARES + 1  # shares, then the logarithm of the shading
TRUTH_SHAPE = (MAPS, INPUT_SHAPE[0], INPUT_SHAPE[1] // PLACE, INPUT_SHAPE[2] // PLACE)
_UNITS = np.array([127, 127, 127, 50], np.float32)[:, None, None, None]  # in the cache, of a share and of a logarithm
_BENT_FROM = 0.1  # of the logarithm of the shading: the loss is a square below, straight above
_CONTRAST_UNIT = MEASURES[Artifact.CONTRAST]["contrast_seen"]
_CONTRAST_BENT_FROM = 0.3  # units
_AROUND = 0.1  # what a place outside the brain counts, beside one inside
_SHADING_WEIGHT, _CONTRAST_WEIGHT = 4.0, 0.5  # beside the shares


class Truth(NamedTuple):
    """Of a batch. maps: (batch, MAPS, slice, row, column) of places, shares as such; known: (batch,), who has any.

    contrast: (batch,), of grey and white matter, in the unit of `train.measures`; not a number where it is not known.
    """

    maps: Tensor
    known: Tensor
    contrast: Tensor


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


def of_anew(truth: NDArray[np.int8], anew: Anew) -> NDArray[np.float32]:
    """The maps of a scan on which Contrast was drawn anew."""
    maps = widened(truth)
    regions = torch.from_numpy(anew.shading)[:, None]
    maps[SHARES] = F.interpolate(regions, scale_factor=REGION // PLACE, mode="bilinear", align_corners=False)[:, 0]
    return maps


def truth_of(
    truths: Sequence[NDArray[np.float32] | None], contrasts: Sequence[float | None], device: torch.device
) -> Truth:
    """The truths of a batch's scans, zero where there are none, and what was measured of their contrast."""
    maps = np.zeros((len(truths), *TRUTH_SHAPE), np.float32)
    for slot, its in enumerate(truths):
        if its is not None:
            maps[slot] = its
    known = torch.tensor([its is not None for its in truths], device=device)
    contrast = torch.tensor([np.nan if its is None else its / _CONTRAST_UNIT for its in contrasts], device=device)
    return Truth(torch.from_numpy(maps).to(device), known, contrast.float())


def truth_loss(said: Sequence[Tensor], truth: Truth) -> Tensor:
    """Cross-entropy of the shares, Huber's loss of the logarithm of the shading and of the contrast, in the brain.

    said: what passes `TissueUNet.laid`: shares (slice, SHARES, row, column), regions (batch, REGIONS, slice, …), which
    of these slices there are (batch, slice), and the same among all slices. The shares count a little around the brain,
    too. The mean over the slices of scans that have a truth; else 0.
    """
    shares, regions, there, looked = said
    scan = there.nonzero()[:, 0]
    known = truth.known[scan]
    if not known.any():
        return shares.sum() * 0 + regions.sum() * 0
    target = truth.maps.transpose(1, 2)[looked][known]  # (slice, MAPS, row, column)
    shares, seen = shares[known], regions.transpose(1, 2)[there][known]
    near = target[:, :1] + _AROUND
    crossed = F.binary_cross_entropy_with_logits(shares, target[:, :SHARES], reduction="none")
    of_regions = F.avg_pool2d(target, REGION // PLACE)
    brain, shading = of_regions[:, 0], of_regions[:, SHARES]
    off = F.smooth_l1_loss(seen[:, 0], shading, beta=_BENT_FROM, reduction="none")
    contrast = truth.contrast[scan][known]
    measured = brain * ~contrast.isnan()[:, None, None]
    wanted = contrast.nan_to_num()[:, None, None].expand_as(measured)
    faded = F.smooth_l1_loss(seen[:, 1], wanted, beta=_CONTRAST_BENT_FROM, reduction="none")
    return (
        (near * crossed).sum() / near.sum()
        + _SHADING_WEIGHT * (brain * off).sum() / brain.sum().clamp_min(1)
        + _CONTRAST_WEIGHT * (measured * faded).sum() / measured.sum().clamp_min(1)
    )


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
