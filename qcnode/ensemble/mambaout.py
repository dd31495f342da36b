"""MambaOut (arXiv 2405.07992), gated convolutions on each slice by itself, and the ML-Decoder that Zhu et al. add.

Written from the two papers: timm, which has MambaOut, needs torchvision, which a node has no other use for. Depths and
widths are the published ones; the stem takes one channel where theirs takes three colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.artifacts import Severity

_TIMES = (1, 2, 4, 6)  # the stages' channels, in widths
_HEADS = 8


class GatedBlock(nn.Module):
    """A gate times what a depthwise 7 × 7 convolution saw, beside a straight way (figure 1a): channels come last.

    Of the 16/3 × channels that the first layer makes, half are the gate; of the rest as many as came in are convolved.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(8 / 3 * channels)
        self.split = [hidden, hidden - channels, channels]
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.into = nn.Linear(channels, 2 * hidden)
        self.convolved = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.out = nn.Linear(hidden, channels)

    def forward(self, maps: Tensor) -> Tensor:
        gate, passed, seen = self.into(self.norm(maps)).split(self.split, dim=-1)
        seen = self.convolved(seen.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        gated: Tensor = self.out(F.gelu(gate) * torch.cat([passed, seen], -1))
        return maps + gated


class Halved(nn.Module):
    """A convolution that halves rows and columns, and a norm over the channels, which come last."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, 3, 2, 1)
        self.norm = nn.LayerNorm(after, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        halved: Tensor = self.norm(self.convolution(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return halved


class MambaOut(nn.Module):
    """(batch, 1, slice, row, column) → the maps of each slice (batch, slice, row / 32, column / 32, 6 × width)."""

    def __init__(self, width: int, blocks: Sequence[int]) -> None:
        super().__init__()
        widths = [times * width for times in _TIMES]
        self.stem = nn.Sequential(Halved(1, max(1, width // 2)), nn.GELU(), Halved(max(1, width // 2), width))
        stages: list[nn.Module] = []
        for stage, (channels, count) in enumerate(zip(widths, blocks, strict=True)):
            if stage:
                stages.append(Halved(widths[stage - 1], channels))
            stages += [GatedBlock(channels) for _ in range(count)]
        self.stages = nn.Sequential(*stages)

    def forward(self, images: Tensor) -> Tensor:
        slices = images[:, 0].flatten(0, 1)[..., None]  # (batch × slice, row, column, 1)
        maps: Tensor = self.stages(self.stem(slices))
        return maps.view(*images.shape[:1], -1, *maps.shape[1:])


class Pooled(nn.Module):
    """The mean of the maps over their places and the slices, and a norm: (batch, 6 × width)."""

    def __init__(self, maps: MambaOut, channels: int) -> None:
        super().__init__()
        self.maps = maps
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.norm(self.maps(images).float().mean((2, 3))).mean(1)
        return features


class MLDecoder(nn.Module):
    """ML-Decoder (arXiv 2111.12933): three fixed queries, one a severity, each look through a slice's unpooled map.

    One layer of cross-attention and two linear ones, no self-attention. What the queries found is averaged over the
    slices, which with a linear head is Zhu's average of their logits.
    (batch, slice, row, column, channels) → (batch, 3 × size).
    """

    def __init__(self, channels: int, size: int, hidden: int) -> None:
        super().__init__()
        self.sizes = channels, size, hidden
        self.into = nn.Linear(channels, size)
        self.queries: Tensor
        self.register_buffer("queries", torch.randn(len(Severity), size))
        self.before, self.between, self.after = (nn.LayerNorm(size) for _ in range(3))
        self.attention = nn.MultiheadAttention(size, _HEADS, batch_first=True)
        self.mixed = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, size))

    def forward(self, maps: Tensor) -> Tensor:
        places = F.relu(self.into(maps.flatten(2, 3)))  # (batch, slice, place, size)
        batch, slices = places.shape[:2]
        places = places.flatten(0, 1)
        queries = self.before(2 * self.queries).expand(len(places), -1, -1)
        found = self.between(queries + self.attention(queries, places, places, need_weights=False)[0])
        found = self.after(found + self.mixed(found))
        averaged: Tensor = found.float().view(batch, slices, -1).mean(1)
        return averaged


class Queried(nn.Module):
    """Slices' maps and a decoder that reads them: (batch, 1, slice, row, column) → (batch, 3 × size)."""

    def __init__(self, maps: MambaOut, decoder: MLDecoder) -> None:
        super().__init__()
        self.maps = maps
        self.decoder = decoder

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.decoder(self.maps(images))
        return features


def mambaout(width: int, blocks: Sequence[int]) -> tuple[nn.Module, int]:
    """6 × width features."""
    channels = _TIMES[-1] * width
    return Pooled(MambaOut(width, blocks), channels), channels


def mlmambaout(width: int, blocks: Sequence[int]) -> tuple[nn.Module, int]:
    """As Zhu et al. read it: 3 queries × 8 × width features (3 × 768, and 2048 in between, at the published width)."""
    size = 8 * width
    decoder = MLDecoder(_TIMES[-1] * width, size, 64 * width // 3)
    return Queried(MambaOut(width, blocks), decoder), len(Severity) * size
