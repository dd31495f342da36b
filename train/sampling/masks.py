"""Finding the brain as a third task while training, after Zhang et al. 2024 (doi:10.1016/j.neuroimage.2024.120560).

They grade and segment slices of fetal MRI with one feature extractor, a quality head and a segmentation head, because
both look at the brain. Here the extractor is a member's encoder. What the node loads is the member: no head of masks.
"""

from __future__ import annotations

import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.ensemble.model import Member, Output
from qcnode.ensemble.networks import CompactResNet
from qcnode.ensemble.published import FourierFusion
from qcnode.errors import ConfigError
from train.sampling.feed import Masks

_CHANNELS = 16  # into which every stage's maps are mixed before they are added
_TRIAL = (32, 32, 32)  # voxels of a blank image that tells each stage's number of channels


class Segmenting(nn.Module):
    """A member, and a head that finds the brain in the maps of its encoder's stages.

    The stages' maps are mixed to few channels, brought to the first stage's size and added, as in a feature pyramid
    (arXiv 1901.02446, §3.1).
    """

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.member = member
        training = member.training
        with torch.no_grad():
            _, maps = _seen(member.eval(), torch.zeros(1, 1, *_TRIAL, device=member.plane.weight.device))
        member.train(training)
        self.mixed = nn.ModuleList(nn.Conv3d(each.shape[1], _CHANNELS, 1) for each in maps)
        self.mask = nn.Conv3d(_CHANNELS, 1, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Output, Tensor]:
        """What the member says, and logits of brain (batch, 1, …) on the first stage's grid."""
        output, maps = _seen(self.member, images)
        size = maps[0].shape[2:]
        each = [mix(stage) for mix, stage in zip(self.mixed, maps, strict=True)]
        each = [F.interpolate(one, size, mode="trilinear", align_corners=False) for one in each]
        added = torch.stack(each).sum(0)
        return output, self.mask(F.relu(added)).float()


def mask_loss(logits: Tensor, masks: Masks) -> Tensor:
    """Cross-entropy of the voxels and 1 - Dice (arXiv 1606.04797), the mean of the scans that have a mask; else 0.

    The mask is averaged to the grid of the logits: a voxel that is half brain wants to be called so.
    """
    if not masks.known.any():
        return logits.sum() * 0
    logits = logits[masks.known]
    with torch.autocast(logits.device.type, enabled=False):
        slices, rows, columns = logits.shape[2:]
        target = F.adaptive_avg_pool3d(masks.shares[masks.known], (slices, rows, columns))
        said = logits.sigmoid()
        both, all_of_it = (said * target).flatten(1).sum(1), (said + target).flatten(1).sum(1)
        dice = (2 * both + 1) / (all_of_it + 1)  # the 1 is a voxel: a mask without brain can be met too
        return F.binary_cross_entropy_with_logits(logits, target) + (1 - dice).mean()


def _seen(member: Member, images: Tensor) -> tuple[Output, list[Tensor]]:
    """What the member says, and the maps that its encoder's stages gave on the way, the finest first."""
    maps: list[Tensor] = []
    hooks = [
        stage.register_forward_hook(lambda _module, _images, its: maps.append(its)) for stage in _stages(member.encoder)
    ]
    try:
        return member(images), maps
    finally:
        for hook in hooks:
            hook.remove()


def _stages(encoder: nn.Module) -> list[nn.Module]:
    """The parts of an encoder after which its maps are of another size; raises ConfigError for one that has none."""
    if isinstance(encoder, FourierFusion):
        encoder = encoder.spatial
    if isinstance(encoder, CompactResNet):
        encoder = encoder.resnet
    if isinstance(encoder, ResNet):
        return [encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4]
    parts = dict(encoder.named_children())
    if "0" in parts and (blocks := [its for name, its in parts["0"].named_children() if "denseblock" in name]):
        return blocks
    if len(parts) == 12:  # MedNeXt: stem, four stages and their downs in turn, bottleneck, pool, flatten
        return [parts[name] for name in ("1", "3", "5", "7", "9")]
    raise ConfigError(f"A {type(encoder).__name__} has no maps to find the brain in; set its mask_weight to 0.")
