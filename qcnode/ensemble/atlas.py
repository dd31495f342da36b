"""The head laid upright on an atlas's cube, in whichever plane it was scanned: an encoder for what bends a head.

A bend is as large as a head, and looks like somebody else's head. To tell the two apart is to know where in a head
everything lies, so the network sees every head in the same place and the same way round, and its last map keeps every
place apart. The plane is not asked for: a head is laid down as if it were each of the three, and the network itself
says in which it looks like one. Beside that stands what halves show that are laid on each other by their mirror plane,
which fits a head more closely than an atlas does.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.artifacts import Plane
from qcnode.ensemble.blocks import BLOCK_MM, BRIGHTEST, SKIN, LookingEncoder, inside
from qcnode.ensemble.mirror import MirrorResNet
from qcnode.imaging.preprocess import DIRECTIONS

SIDE = 32  # places along each side of the cube: from ear to ear, upwards, backwards
PLACE_MM = 6.4
ATLAS = (len(Plane), SIDE, SIDE, SIDE)

_AXES = ((0, 1), (2, 1), (1, -1))  # of the cube, as (axis of RAS, sign)
_OUTLINE_WEIGHT = 0.6  # of the outline's likeness to an ellipsoid, beside the brightness's
_HEAD_MM, _HEAD_BELOW_MM, _HEAD_SOFTNESS = (68.0, 70.0, 85.0), 4.3, 8.0  # half axes; of its middle below the brain's
_FARTHEST = 6  # places from the middle of the field of view at which a head is sought
_SURENESS = 2.0  # of the plane: it takes more to mix two ways to lie than to name one


class AtlasResNet(LookingEncoder):
    """A small 3-D ResNet of a head's two halves on the atlas as channels, whose last map is flattened; and a mirror's.

    A wrong way to lie says nothing of a bend, so what is seen in each of the three counts as far as it looks upright.
    (batch, 1, slice, row, column) → (batch, FEATURES).
    """

    SEEN = 192
    FEATURES = MirrorResNet.MIXED + SEEN + len(Plane)
    MIRROR_WIDTH = 16
    _SQUEEZED = 32

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mirror = MirrorResNet(self.MIRROR_WIDTH)
        self.stem = nn.Sequential(nn.Conv3d(4, width, 3, 1, 1), nn.ReLU())
        self.blocks = nn.Sequential(
            _Block(width, 2 * width, 2), _Block(2 * width, 4 * width, 2), _Block(4 * width, 4 * width, 1)
        )
        self.squeeze = nn.Conv3d(4 * width, self._SQUEEZED, 1)
        places = SIDE**3 // 2 // 4**3  # of the last map: half a cube, halved twice along each side
        self.seen = nn.Sequential(nn.Linear(self._SQUEEZED * places + 4 * width, self.SEEN), nn.ReLU())
        self.upright = nn.Linear(self.SEEN, 1)

    def look(self, blocks: Tensor) -> Tensor:
        """The mirror's look, then the head on the cube as if it lay in each plane (ATLAS), in one row."""
        return torch.cat([self.mirror.look(blocks), *(on_atlas(blocks, plane).flatten() for plane in Plane)])

    def features_of(self, looks: Tensor) -> Tensor:
        """See `look`."""
        cubes = math.prod(ATLAS)
        seen = self.seen_on(looks[:, -cubes:].reshape(-1, SIDE, SIDE, SIDE))
        upright = self.upright(seen).view(-1, len(Plane))
        share = torch.softmax(_SURENESS * upright, 1)
        mixed = (seen.view(-1, len(Plane), self.SEEN) * share[..., None]).sum(1)
        return torch.cat([self.mirror.features_of(looks[:, :-cubes]), mixed, upright], 1)

    def seen_on(self, cubes: Tensor) -> Tensor:
        """What heads show that lie on the cube in one way each: (batch, SIDE, SIDE, SIDE) → (batch, SEEN)."""
        half = SIDE // 2
        halves = torch.stack([cubes[:, :half].flip(1), cubes[:, half:]], 1)
        channels = torch.cat([halves - 0.5, inside(halves)], 1)
        maps = self.blocks(self.stem(channels.contiguous(memory_format=torch.channels_last_3d)))
        places = F.relu(self.squeeze(maps)).flatten(1)
        found: Tensor = self.seen(torch.cat([places, maps.mean((2, 3, 4))], 1).float())
        return found


class _Block(nn.Module):
    """Two convolutions beside a straight way."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(before, after, 3, stride, 1, bias=False), nn.BatchNorm3d(after), nn.ReLU())
        self.second = nn.Sequential(nn.Conv3d(after, after, 3, 1, 1, bias=False), nn.BatchNorm3d(after))
        is_alike = stride == 1 and before == after
        self.straight: nn.Module = nn.Identity()
        if not is_alike:
            self.straight = nn.Sequential(nn.Conv3d(before, after, 1, stride, bias=False), nn.BatchNorm3d(after))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(maps)) + self.straight(maps))


def on_atlas(blocks: Tensor, plane: Plane) -> Tensor:
    """A scan's blocks (slice, row, column), taken in this plane, on the cube: (SIDE, SIDE, SIDE).

    It is shifted by whole places, to where an ellipsoid fits the head best, and scaled to the foreground's mean.
    """
    coarse = blocks.clamp(0, BRIGHTEST)
    cube = _on_cube(coarse, plane, _shift_of(_on_cube(coarse, plane, (0.0, 0.0, 0.0))))
    foreground = cube[cube > SKIN]
    scale = foreground.mean() if len(foreground) else cube.new_ones(())
    return (cube / scale).clamp(0, BRIGHTEST)


def _on_cube(blocks: Tensor, plane: Plane, shift_mm: tuple[float, ...]) -> Tensor:
    """The cube about a point (mm from the middle of the field of view, along the cube's axes), between blocks linearly.

    Every axis of the cube is one of the blocks' own, so that each is interpolated by itself.
    """
    lying, order = blocks, []
    for (axis, sign), off in zip(_AXES, shift_mm, strict=True):
        its = next(n for n, (other, _) in enumerate(DIRECTIONS[plane]) if other == axis)
        places = (_steps(SIDE, blocks.device) * PLACE_MM + off) * sign * DIRECTIONS[plane][its][1]
        nodes = _steps(blocks.shape[its], blocks.device) * BLOCK_MM[its]
        weights = (1 - (places[:, None] - nodes).abs() / BLOCK_MM[its]).clamp_min(0)
        lying = torch.tensordot(lying.movedim(its, -1), weights, dims=([-1], [1])).movedim(-1, its)
        order.append(its)
    return lying.permute(order).contiguous()


def _steps(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device) - (count - 1) / 2


def _shift_of(cube: Tensor) -> tuple[float, ...]:
    """The shift, in mm along each axis, at which the head is most like an ellipsoid: by cross-correlation."""
    outline = inside(cube)
    channels = [_OUTLINE_WEIGHT * _normed(outline), (1 - _OUTLINE_WEIGHT) * _normed(outline * cube.clamp(max=2.0))]
    size, reach = SIDE + 2 * _FARTHEST, 2 * _FARTHEST + 1
    spectrum = torch.fft.rfftn(F.pad(channels[0] + channels[1], (_FARTHEST,) * 6))
    of_head = torch.fft.rfftn(F.pad(_head(), (0, 2 * _FARTHEST) * 3)).to(cube.device)
    likeness = torch.fft.irfftn(spectrum * of_head.conj(), s=(size,) * 3)[:reach, :reach, :reach]
    best = torch.unravel_index(likeness.argmax(), likeness.shape)
    return tuple((int(at) - _FARTHEST) * PLACE_MM for at in best)


@cache
def _head() -> Tensor:
    """A head as large as most, on the cube: what it differs from its mean."""
    axes = [_steps(SIDE, torch.device("cpu")) * PLACE_MM for _ in range(3)]
    across, up, back = torch.meshgrid(*axes, indexing="ij")
    parts = (across, up + _HEAD_BELOW_MM, back)
    distance = sum((along / half) ** 2 for along, half in zip(parts, _HEAD_MM, strict=True))
    head = torch.sigmoid((1 - torch.as_tensor(distance).sqrt()) * _HEAD_SOFTNESS)
    return head - head.mean()


def _normed(cube: Tensor) -> Tensor:
    spread: Tensor = (cube - cube.mean()).norm()
    return cube / spread.clamp_min(1e-6)


def atlas_resnet(width: int) -> tuple[nn.Module, int]:
    """259 features."""
    return AtlasResNet(width), AtlasResNet.FEATURES
