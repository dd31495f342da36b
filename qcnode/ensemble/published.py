"""The encoders that BRIQA compares (arXiv 2510.26661), as MONAI builds them, and the Fourier fusion around any encoder.

Each pools its last maps to their mean. `width` is the number of channels that the stem gives; with the published one
(64, and 32 for MedNeXt) the network is the published one, and a smaller one is a compact variant of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.mednext import MedNeXt
from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck
from torch import Tensor, nn


def resnet(width: int, blocks: Sequence[int], *, bottleneck: bool) -> tuple[nn.Module, int]:
    """A 3-D ResNet (arXiv 1512.03385, inflated as in arXiv 1711.09577); the stem's stride is 1, as in MONAI's."""
    block = ResNetBottleneck if bottleneck else ResNetBlock
    widths = [width, 2 * width, 4 * width, 8 * width]
    network = ResNet(
        block, list(blocks), widths, spatial_dims=3, n_input_channels=1, shortcut_type="B", feed_forward=False
    )
    return network, widths[-1] * block.expansion


def densenet(width: int, blocks: Sequence[int]) -> tuple[nn.Module, int]:
    """A 3-D DenseNet (arXiv 1608.06993) that grows by width / 2 channels a layer."""
    growth = max(1, width // 2)
    features = DenseNet(3, 1, 3, init_features=width, growth_rate=growth, block_config=tuple(blocks)).features
    channels: int = features.norm5.num_features
    return nn.Sequential(features, nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()), channels


def mednext(width: int) -> tuple[nn.Module, int]:
    """The half of MedNeXt-S (arXiv 2303.09975) that looks: stem, four stages with their downs, bottleneck."""
    whole = MedNeXt(3, init_filters=width, kernel_size=3, use_residual_connection=True)
    stages = [part for pair in zip(whole.enc_stages, whole.down_blocks, strict=True) for part in pair]
    pool = [nn.AdaptiveAvgPool3d(1), nn.Flatten()]
    return nn.Sequential(whole.stem, *stages, whole.bottleneck, *pool), 16 * width


def lou(width: int) -> tuple[nn.Module, int]:
    """Lou et al.'s two networks of five convolutions (github.com/cyfqylyw/MRIQA), on the image and on its spectrum.

    Theirs flatten the last maps into linear layers, for which every scan must be of one size; here they are pooled.
    """
    features = 8 * width
    return FourierFusion(_five(1, width, features), _five(3, 2 * width, features), three_spectra), 2 * features


def _five(channels: int, width: int, features: int) -> nn.Module:
    """Five convolutions, the last two within the slices; each with its ReLU and maximum, without a norm."""
    kernel, padding = (1, 3, 3), (0, 1, 1)
    return nn.Sequential(
        *(nn.Conv3d(channels, width, 7, stride=2, padding=3), nn.ReLU(), nn.MaxPool3d(3, 1, 1)),
        *(nn.Conv3d(width, width, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool3d(2)),
        *(nn.Conv3d(width, features, 3, padding=1), nn.ReLU(), nn.MaxPool3d(3, 1, 1)),
        *(nn.Conv3d(features, features, kernel, padding=padding), nn.ReLU(), nn.MaxPool3d(kernel, 1, padding)),
        *(nn.Conv3d(features, features, kernel, padding=padding), nn.ReLU(), nn.MaxPool3d(kernel, 1, padding)),
        *(nn.AdaptiveAvgPool3d(1), nn.Flatten()),
    )


class FourierFusion(nn.Module):
    """Two encoders of one kind, one on the image and one on its spectrum; their features stand side by side.

    BRIQA does not say which figures of the discrete Fourier transform its second encoder sees. Here it is the
    logarithm of the magnitude, one of the three channels of Lou et al., in the transform's own order (no shift).
    (batch, 1, slice, row, column) → (batch, features of both).
    """

    def __init__(
        self, spatial: nn.Module, spectral: nn.Module, figures: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.spatial = spatial
        self.spectral = spectral
        self.figures = figures or log_spectrum

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.spatial(images).float(), self.spectral(self.figures(images)).float()], 1)


def log_spectrum(images: Tensor) -> Tensor:
    """log(1 + |F|), F being the orthonormal transform over the last three axes; the shape stays."""
    with torch.autocast(images.device.type, enabled=False):
        return torch.log1p(torch.fft.fftn(images.float(), dim=(-3, -2, -1), norm="ortho").abs())


def three_spectra(images: Tensor) -> Tensor:
    """Lou et al.'s channels of the orthonormal transform F: log(1 + |·|) of Re F and Im F with their signs, and of F.

    (batch, 1, slice, row, column) → (batch, 3, slice, row, column).
    """
    with torch.autocast(images.device.type, enabled=False):
        spectrum = torch.fft.fftn(images.float(), dim=(-3, -2, -1), norm="ortho")
        real, imaginary = (part.sign() * torch.log1p(part.abs()) for part in (spectrum.real, spectrum.imag))
        return torch.cat([real, imaginary, torch.log1p(spectrum.abs())], 1)
