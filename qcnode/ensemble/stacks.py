"""Stacks of fewer slices than a member has learned from, laid back and forth until they are as many.

A member that takes the mean over a scan's slices would take most of it over the padding beside a short stack.
"""

from __future__ import annotations

from itertools import cycle, islice

import torch
from torch import Tensor

from qcnode.artifacts import Artifact
from qcnode.imaging.preprocess import CUBE

_IN_EACH_SLICE = frozenset({Artifact.NOISE, Artifact.ZIPPER, Artifact.MOTION})


def can_be_laid(artifact: Artifact, encoder: str, preprocessing: str) -> bool:
    """Whether the artifact is in each slice, for an encoder that takes the mean over them.

    The other artifacts are of the head as a whole, or steps between slices, which laying them would change or make.
    """
    return artifact in _IN_EACH_SLICE and encoder == "compact-resnet" and preprocessing != CUBE


def back_and_forth(count: int, depth: int) -> list[int]:
    """Which of `count` slices, one after the other, make a stack of `depth`."""
    there = range(count)
    return list(islice(cycle([*there, *reversed(there)]), depth))


def slices_there(images: Tensor) -> tuple[int, int]:
    """The first slice of (slice, row, column) that is not padding, and the one past the last; (0, 0) of nothing."""
    there = images.flatten(1).any(1).nonzero()[:, 0].tolist()
    return (there[0], there[-1] + 1) if there else (0, 0)


def laid_out(images: Tensor, known: tuple[int, int] | None) -> Tensor:
    """A network input (1, 1, slice, row, column); if its slices are fewer than is known, laid to the usual number.

    known: the fewest slices, and the usual number, of what the member learned from; None where it is left as it is.
    """
    stack = images[0, 0]
    first, last = slices_there(stack)
    if known is None or not 0 < last - first < known[0]:
        return images
    depth = min(known[1], len(stack))
    laid, start = torch.zeros_like(stack), (len(stack) - depth) // 2
    laid[start : start + depth] = stack[first:last][back_and_forth(last - first, depth)]
    return laid[None, None].contiguous(memory_format=torch.channels_last_3d)
