"""What members start from: an encoder that all artifacts shared, or a weights folder's members."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.mambaout import MLDecoder, Queried
from qcnode.ensemble.model import Member
from qcnode.ensemble.networks import encoder as built_encoder
from qcnode.ensemble.runtime import load_member
from qcnode.ensemble.weights import MemberEntry, read_manifest
from train.config import FitConfig

log = logging.getLogger(__name__)
SHARED = "shared.safetensors"


class Shared(nn.Module):
    """One encoder with a severity head for every artifact, and an ML-Decoder for every one where it ends in one.

    The encoder's own decoder is the first artifact's; without decoders all artifacts' heads see the same features.
    """

    def __init__(self, encoder: str, width: int) -> None:
        super().__init__()
        self.encoder, channels = built_encoder(encoder, width)
        self.decoders = nn.ModuleList()
        if isinstance(self.encoder, Queried):
            self.decoders.extend(MLDecoder(*self.encoder.decoder.sizes) for _ in range(len(Artifact) - 1))
        self.severity = nn.Linear(channels, len(Artifact) * len(Severity))
        self.plane = nn.Linear(channels, len(Plane))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 1, slice, row, column) → severity logits (batch, 3, artifact), plane logits (batch, 3).

        Where decoders differ, the plane's are the mean of what they give.
        """
        if not isinstance(self.encoder, Queried):
            features = self.encoder(images).float()
            with torch.autocast(images.device.type, enabled=False):
                return self.severity(features).view(-1, len(Severity), len(Artifact)), self.plane(features)
        maps = self.encoder.maps(images)
        each = torch.stack([decoder(maps) for decoder in (self.encoder.decoder, *self.decoders)], 1).float()
        with torch.autocast(images.device.type, enabled=False):
            weight = self.severity.weight.view(len(Severity), len(Artifact), -1)
            bias = self.severity.bias.view(len(Severity), len(Artifact))
            return torch.einsum("baf,saf->bsa", each, weight) + bias, self.plane(each.mean(1))

    def member(self, artifact: Artifact, member: Member) -> Member:
        """The member with this encoder, its decoder and heads; an ordinal severity head stays as it was made."""
        index, channels = list(Artifact).index(artifact), self.plane.in_features
        member.encoder.load_state_dict(self.encoder.state_dict())
        if isinstance(member.encoder, Queried) and index:
            member.encoder.decoder.load_state_dict(self.decoders[index - 1].state_dict())
        member.plane.load_state_dict(self.plane.state_dict())
        if not member.ordinal:
            with torch.no_grad():
                weight = self.severity.weight.view(len(Severity), len(Artifact), channels)
                member.severity.weight.copy_(weight[:, index])
                member.severity.bias.copy_(self.severity.bias.view(len(Severity), len(Artifact))[:, index])
        return member


def new_member(config: FitConfig) -> Member:
    """The configuration's member as chance, from its seed, makes it."""
    torch.manual_seed(config.seed)
    return Member(config.encoder, config.encoder_width, ordinal=config.ordinal, dropout=config.dropout)


def going_on(config: FitConfig, weights: Path) -> FitConfig:
    """The configuration with the encoders of the weights folder, where it names none; raises ConfigError."""
    return config.going_on_from({entry.artifact: _kind(entry) for entry in read_manifest(weights).members})


def is_shipped(config: FitConfig, artifact: Artifact, weights: Path) -> bool:
    """Whether the weights folder's member is of the configuration's kind; raises ConfigError as `shipped_member`."""
    return _kind(_shipped(artifact, weights)) == config.kind


def shipped_member(config: FitConfig, artifact: Artifact, weights: Path) -> Member:
    """The configuration's member with the weights folder's values; as chance makes it, and told so, where they differ.

    Raises ConfigError for a folder that cannot be read.
    """
    member, entry = new_member(config), _shipped(artifact, weights)
    theirs, ours = _kind(entry), config.kind
    if theirs == ours:
        member.load_state_dict(load_member(weights, entry).state_dict())
    else:
        log.warning(
            "%s in %s is %s, not %s: it starts from chance; set its encoder, width and loss alike to start from there.",
            artifact,
            weights,
            _told(*theirs),
            _told(*ours),
        )
    return member


def _shipped(artifact: Artifact, weights: Path) -> MemberEntry:
    return next(entry for entry in read_manifest(weights).members if entry.artifact == artifact)


def _kind(entry: MemberEntry) -> tuple[str, int, bool]:
    """A weights folder's member's, as a configuration's `kind`."""
    return entry.encoder, entry.width, entry.ordinal


def _told(encoder: str, width: int, ordinal: bool) -> str:
    return f"{encoder} of width {width}{', ordinal' if ordinal else ''}"
