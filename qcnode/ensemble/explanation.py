"""Which slices carry a grade: those that a member would find fault with if they were the whole scan.

A few neighbouring slices are laid back and forth until they make a stack of their own, and the member grades that. So
each part of the scan gets a grade that says nothing of the rest. Were a part taken away instead, nothing would change
where the rest carries the grade as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcnode.artifacts import Artifact
from qcnode.ensemble.model import Member
from qcnode.ensemble.networks import CompactResNet
from qcnode.ensemble.stacks import back_and_forth

_AS_LARGE_AS_THE_HEAD = frozenset({Artifact.POSITIONING, Artifact.CONTRAST, Artifact.DISTORTION})
_WINDOW = 4  # slices that are graded together
_BATCH = 5  # windows that a thread grades at a time
_DEPTH = 24  # slices of the stack that a window is laid out to; a deep network needs that many
_FAULT = -2.0  # of the margin; moderate or worse has a chance of one in eight
_FAULT_OF = {Artifact.MOTION: -6.5}  # whose member is surer of clean slices
_MOST = 0.58  # of the slices: a fault in more of them is the whole scan's

Each = Callable[[Callable[[list[int]], list[float]], Iterable[list[int]]], Iterable[list[float]]]


def carrying_slices(
    member: Member, artifact: Artifact, images: Tensor, shown: NDArray[np.intp], each: Each = map
) -> tuple[int, ...] | None:
    """The volume's slices, from 0, that carry the member's grade of a network input; () where it is the whole scan's.

    images: (1, 1, slice, row, column). shown: for each slice of the volume, the input's that shows it, else -1.
    each: as `map` does, on as many threads as it likes.
    None where nobody can tell: other encoders make of a few slices what they make of no scan, or take too long.
    """
    there = shown[shown >= 0]
    if artifact in _AS_LARGE_AS_THE_HEAD:
        return ()
    if not isinstance(member.encoder, CompactResNet) or np.ptp(there) < _WINDOW:
        return None
    first, last = there.min(), there.max()
    found = np.zeros(images.shape[2], np.bool_)
    fault = _FAULT_OF.get(artifact, _FAULT)
    found[first : last + 1] = faulty(own_margins(member, images[0, 0, first : last + 1], fault, each), fault)
    return tuple(int(number) for number in np.flatnonzero((shown >= 0) & found[shown]))


def own_margins(member: Member, slices: Tensor, fault: float, each: Each = map) -> NDArray[np.float32]:
    """How much each of the slices (slice, row, column) is at fault by itself: (slice,), higher is worse.

    The logarithm of P(moderate or worse) over P(none), the mean of the windows that the slice is in. A window between
    two others is graded where one of them is at fault, beyond `fault`, and one is not, and is taken for their mean
    elsewhere.
    """
    last = len(slices) - _WINDOW

    def of(starts: list[int]) -> dict[int, float]:
        parts = [starts[first : first + _BATCH] for first in range(0, len(starts), _BATCH)]
        margins = [margin for part in each(partial(_window_margins, member, slices), parts) for margin in part]
        return dict(zip(starts, margins, strict=True))

    graded = of([*range(0, last, _WINDOW), last])
    pairs = {(one + other) // 2: (graded[one], graded[other]) for one, other in pairwise(graded)}
    between = {start: sum(both) / 2 for start, both in pairs.items()}
    between |= of([start for start, (one, other) in pairs.items() if (one > fault) != (other > fault)])
    total, windows = np.zeros(len(slices), np.float32), np.zeros(len(slices), np.float32)
    for start, margin in (between | graded).items():
        total[start : start + _WINDOW] += margin
        windows[start : start + _WINDOW] += 1
    return total / windows


def _window_margins(member: Member, slices: Tensor, starts: list[int]) -> list[float]:
    """Those of the windows that begin at these slices, each laid back and forth."""
    order = torch.tensor(back_and_forth(_WINDOW, _DEPTH), device=slices.device)
    stacks = torch.stack([slices[start + order] for start in starts])[:, None]
    with torch.inference_mode():
        severity = member(stacks.contiguous(memory_format=torch.channels_last_3d)).severity
        margins: list[float] = (severity[:, 1:].logsumexp(1) - severity[:, 0]).tolist()
        return margins


def faulty(margins: NDArray[np.float32], fault: float) -> NDArray[np.bool_]:
    """Which slices stand out of the others by their margins, (slice,); none where most of them are alike at fault.

    fault: the margin beyond which a slice is at fault.
    """
    at_fault = margins > fault
    if not at_fault.any() or at_fault.mean() > _MOST:
        return np.zeros(len(margins), np.bool_)
    # A window at the border of a strong artifact is at fault as well, though half of its slices are clean.
    low, high = np.percentile(margins, 10), margins.max()
    return np.asarray(at_fault & (margins > (low + high) / 2))
