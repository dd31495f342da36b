"""Scans that are smaller than those a member has learned from, laid back and forth until they are as large.

A member that takes the mean over a scan would take most of it over the padding beside a short stack or a small field
of view.
"""

from __future__ import annotations

from itertools import cycle, islice

import torch
from torch import Tensor

from qcnode.artifacts import Artifact
from qcnode.ensemble.weights import Extents
from qcnode.imaging.preprocess import CUBE

_WITH_AIR = 0.8  # share of a field of view that is above zero where its background was not set to zero
_IN_EACH_SLICE = frozenset({Artifact.NOISE, Artifact.ZIPPER, Artifact.MOTION})


def can_be_laid(artifact: Artifact, encoder: str, preprocessing: str) -> bool:
    """Whether the artifact is in each slice, for an encoder that takes the mean over them.

    The other artifacts are of the head as a whole, or steps between slices, which laying them would change or make.
    """
    return artifact in _IN_EACH_SLICE and encoder == "compact-resnet" and preprocessing != CUBE


def back_and_forth(count: int, depth: int) -> list[int]:
    """Which of `count` slices, one after the other, make a stack of `depth`."""
    forth = range(count)
    return list(islice(cycle([*forth, *reversed(forth)]), depth))


def there(images: Tensor, axis: int) -> tuple[int, int]:
    """Along this axis of (slice, row, column), the first index that is not all padding, and the one past the last."""
    found = images.movedim(axis, 0).flatten(1).any(1).nonzero()[:, 0].tolist()
    return (found[0], found[-1] + 1) if found else (0, 0)


def laid_out(images: Tensor, known: Extents | None) -> Tensor:
    """A network input (1, 1, slice, row, column); what is smaller than is known is laid to the usual size.

    Slices always; rows and columns only of a field of view that is small, not where the background is zero.
    known: what the member learned from; None where scans are left as they are.
    """
    if known is None:
        return images
    laid = images[0, 0]
    box = tuple(slice(*there(laid, axis)) for axis in range(3))
    has_air = laid[box].count_nonzero() > _WITH_AIR * laid[box].numel()
    for axis, (fewest, usual) in enumerate(known):
        first, last = there(laid, axis)
        if 0 < last - first < fewest and (axis == 0 or has_air):
            laid = _laid(laid.movedim(axis, 0), first, last, usual).movedim(0, axis)
    if laid.data_ptr() == images.data_ptr():
        return images
    return laid[None, None].contiguous(memory_format=torch.channels_last_3d)


def _laid(stack: Tensor, first: int, last: int, usual: int) -> Tensor:
    depth = min(usual, len(stack))
    laid, start = torch.zeros_like(stack), (len(stack) - depth) // 2
    laid[start : start + depth] = stack[first:last][back_and_forth(last - first, depth)]
    return laid
