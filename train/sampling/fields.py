"""What a simulator knows at every place of a scan, as a third task while training (qcnode/ensemble/fields.py).

Renders carry it. Scans that were rated by people, and those that were simulated voxel by voxel, have none, and do not
contribute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from qcnode.ensemble.fields import (
    DISPLACEMENT_MM,
    FIELD_SHAPE,
    FIELDS,
    POSE,
    POSE_DEGREES,
    POSE_MM,
    SHARES,
    FieldUNet,
)
from qcnode.ensemble.tissue import TissueUNet
from qcnode.imaging.preprocess import oriented
from qcnode.imaging.volume import Volume
from train.simulation.scans import DIRECTIONS, Displacement, Grid, Pose

_MOST = 6.0  # units of a pose; the offset of a head that is cut is beyond
_BENT_FROM, _POSE_BENT_FROM = 0.1, 0.3  # units: a loss is a square below, straight above
_AROUND = 0.02  # what a place outside the brain counts, beside one inside


class Fields(NamedTuple):
    """Of one scan. maps: (FIELDS, *FIELD_SHAPE), shares in place of their logits. pose: (POSE,)."""

    maps: NDArray[np.float16]
    pose: NDArray[np.float32]

    def mirrored(self, axis: int) -> Fields:
        """Of the scan mirrored along an axis (0 slice, 1 row, 2 column)."""
        maps, pose = np.flip(self.maps, axis + 1).copy(), self.pose.copy()
        maps[axis - 3] *= -1
        pose[:3] *= -1  # a reflection keeps the turn about its own axis alone
        pose[[axis, 3 + axis]] *= -1
        return Fields(maps, pose)


class Drawn(NamedTuple):
    """Of a batch. maps: (batch, FIELDS, *FIELD_SHAPE), pose: (batch, POSE), known: (batch,), whether a scan has any."""

    maps: Tensor
    pose: Tensor
    known: Tensor


def fields_of(
    grid: Grid,
    tissues: Sequence[NDArray[np.float32]],
    shading: NDArray[np.float32],
    deformation: Displacement | None,
    pose: Pose,
) -> Fields:
    """What is known of a render on places of the whole network input: its axes and their signs are the blocks'.

    tissues: shares of brain, grey and white matter, and shading its logarithm, on samples of the whole network input.
    grid: of these samples, but that it may be smaller.
    """
    each = [_at_places(one) for one in (*tissues, shading)]
    if deformation is None:
        each += [np.zeros(FIELD_SHAPE, np.float32)] * 3
    else:
        mm = np.array(grid.spacing_mm) * shading.shape / FIELD_SHAPE
        axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(FIELD_SHAPE, mm, strict=True)]
        places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        shift = deformation(places @ DIRECTIONS[grid.plane].T) @ DIRECTIONS[grid.plane] / DISPLACEMENT_MM
        each += list(shift.T.reshape(3, *FIELD_SHAPE).astype(np.float32))
    signs = _signs(grid)
    lying = [oriented(Volume(one, grid.affine))[0] for one in each]
    lying[-3:] = [one * sign for one, sign in zip(lying[-3:], signs, strict=True)]
    turned = Rotation.from_matrix(pose.rotation).as_rotvec(degrees=True)
    turn = turned @ DIRECTIONS[grid.plane] * signs * np.prod(signs) * np.linalg.det(DIRECTIONS[grid.plane])
    offset = np.array(pose.offset_mm) @ DIRECTIONS[grid.plane] * signs
    its_pose = np.concatenate([turn / POSE_DEGREES, offset / POSE_MM]).astype(np.float32)
    return Fields(np.stack(lying).astype(np.float16), its_pose)


def _signs(grid: Grid) -> NDArray[np.float64]:
    """Along which of its axes the grid lies as network inputs do, and along which the other way round."""
    steps = np.indices((2, 2, 2), np.float32)
    corner = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    lying = [oriented(Volume(axis, grid.affine))[0] for axis in steps]
    return np.array([float(one[at] - one[0, 0, 0]) for one, at in zip(lying, corner, strict=True)])


def _at_places(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    counts = [n // places for n, places in zip(samples.shape, FIELD_SHAPE, strict=True)]
    split = [size for pair in zip(FIELD_SHAPE, counts, strict=True) for size in pair]
    return np.asarray(samples.reshape(split).mean((1, 3, 5)), np.float32)


def batch_of(fields: Sequence[Fields | None], device: torch.device) -> Drawn:
    """The fields of a batch's scans, zero where there are none."""
    maps = np.zeros((len(fields), FIELDS, *FIELD_SHAPE), np.float32)
    poses = np.zeros((len(fields), POSE), np.float32)
    for slot, its in enumerate(fields):
        if its is not None:
            maps[slot], poses[slot] = its
    known = torch.tensor([its is not None for its in fields], device=device)
    return Drawn(torch.from_numpy(maps).to(device), torch.from_numpy(poses).to(device), known)


@contextmanager
def watched(encoder: nn.Module) -> Iterator[list[Tensor]]:
    """While the encoder runs: the list to which it adds what it drew; encoders that draw nothing add nothing.

    That is fields and pose, or what passes `TissueUNet.laid`.
    """
    said: list[Tensor] = []
    hooks: list[RemovableHandle] = []
    if isinstance(encoder, FieldUNet):
        for part in (encoder.fields, encoder.pose):
            hooks.append(part.register_forward_hook(lambda _module, _inputs, its: said.append(its.float())))
    if isinstance(encoder, TissueUNet):
        hooks.append(encoder.laid.register_forward_pre_hook(lambda _module, inputs: said.extend(inputs)))
    try:
        yield said
    finally:
        for hook in hooks:
            hook.remove()


def fields_loss(said: Sequence[Tensor], truth: Drawn) -> Tensor:
    """Cross-entropy of the shares, Huber's losses of shading and displacement in the brain, and of the pose.

    said: the fields and the pose that were drawn, in this order. The mean over the scans that have fields; else 0.
    """
    maps, pose = said
    if not truth.known.any():
        return maps.sum() * 0
    maps, pose, true_maps, true_pose = (each[truth.known] for each in (maps, pose, truth.maps, truth.pose))
    shares = true_maps[:, :SHARES].clamp(0, 1)
    near = shares[:, :1] + _AROUND
    found = F.binary_cross_entropy_with_logits(maps[:, :SHARES], shares)
    off = F.smooth_l1_loss(maps[:, SHARES:], true_maps[:, SHARES:], beta=_BENT_FROM, reduction="none") * near
    shading, bend = (part.sum() / (part.shape[1] * near.sum()) for part in (off[:, :1], off[:, 1:]))
    lying = F.smooth_l1_loss(pose, true_pose.clamp(-_MOST, _MOST), beta=_POSE_BENT_FROM)
    return 2 * found + 4 * shading + 2 * bend + 2 * lying
