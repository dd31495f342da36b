"""What a scan was simulated with at every place, as a third task while training (qcnode/ensemble/tissue.py).

`simulate` writes it beside each scan. Scans that were rated by people have none, and do not contribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qcnode.artifacts import Artifact
from qcnode.ensemble.tissue import MAPS, PLACE, SHARES
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import INPUT_SHAPE, placed
from qcnode.imaging.volume import Volume, volume_from_nifti
from train.config import FitConfig
from train.dataset import Scan, cached
from train.simulate import TRUTH_STEPS

TRUTH_SHAPE = (MAPS, INPUT_SHAPE[0], INPUT_SHAPE[1] // PLACE, INPUT_SHAPE[2] // PLACE)
_UNITS = np.array([127, 127, 127, 50], np.float32)[:, None, None, None]  # in the cache, of a share and of a logarithm
_BENT_FROM = 0.1  # of the logarithm of the shading: the loss is a square below, straight above
_AROUND = 0.1  # what a place outside the brain counts, beside one inside


class Truth(NamedTuple):
    """Of a batch. maps: (batch, MAPS, slice, row, column) of places, shares as such; known: (batch,), who has any."""

    maps: Tensor
    known: Tensor


def cached_truth(scan: Scan, cache: Path) -> NDArray[np.int8] | None:
    """What the scan was simulated with, TRUTH_SHAPE on the network input's places, mapped; None if it has none.

    Brain, grey and white matter's shares, then the logarithm of the shading, as `widened` reads them.
    Raises ConfigError for maps of another grid.
    """

    def made() -> NDArray[np.int8]:
        mask = volume_from_nifti(scan.mask_path)
        maps = [(mask.array != 0).astype(np.float32), *_maps_of(scan.truth_path, mask)]
        means = [_places(placed(replace(mask, array=each))) for each in maps]
        steps: NDArray[np.int8] = np.rint(np.stack(means) * _UNITS).clip(-127, 127).astype(np.int8)
        return steps

    if not scan.truth_path.is_file():
        return None
    mapped: NDArray[np.int8] = cached(scan.truth_path, cache, "truth-1", made, TRUTH_SHAPE)
    return mapped


def cached_truths(scans: Sequence[Scan], cache: Path, config: FitConfig) -> list[NDArray[np.int8] | None]:
    """Every scan's truth, or none at all where the configuration asks for none."""
    weights = (config.of(artifact).truth_weight for artifact in Artifact)
    return [cached_truth(scan, cache) for scan in scans] if any(weights) else []


def widened(truth: NDArray[np.int8]) -> NDArray[np.float32]:
    """Shares, and the logarithm of the shading, of what `cached_truth` gave."""
    return np.asarray(truth / _UNITS, np.float32)


def truth_of(truths: Sequence[NDArray[np.float32] | None], device: torch.device) -> Truth:
    """The truths of a batch's scans, zero where there are none."""
    maps = np.zeros((len(truths), *TRUTH_SHAPE), np.float32)
    for slot, its in enumerate(truths):
        if its is not None:
            maps[slot] = its
    known = torch.tensor([its is not None for its in truths], device=device)
    return Truth(torch.from_numpy(maps).to(device), known)


def truth_loss(said: Sequence[Tensor], truth: Truth) -> Tensor:
    """Cross-entropy of the shares and Huber's loss of the logarithm of the shading, both in the brain above all.

    said: maps (slice, row, column, MAPS), and of which slices they are (batch, slice), as `watched` has them. The mean
    over the slices of scans that have a truth; else 0.
    """
    maps, drawn = said
    known = truth.known[drawn.nonzero()[:, 0]]
    if not known.any():
        return maps.sum() * 0
    maps, target = maps[known], truth.maps.permute(0, 2, 3, 4, 1)[drawn & truth.known[:, None]]
    near = target[..., :1] + _AROUND
    shares = F.binary_cross_entropy_with_logits(maps[..., :SHARES], target[..., :SHARES], reduction="none")
    off = F.smooth_l1_loss(maps[..., SHARES:], target[..., SHARES:], beta=_BENT_FROM, reduction="none")
    return (near * shares).sum() / near.sum() + 4 * (target[..., :1] * off).sum() / near.sum()


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


def _places(array: NDArray[np.float32]) -> NDArray[np.float32]:
    slices, rows, columns = TRUTH_SHAPE[1:]
    means: NDArray[np.float32] = array.reshape(slices, rows, PLACE, columns, PLACE).mean((2, 4))
    return means
