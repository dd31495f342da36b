"""The published encoders: their features, their size, and that they learn."""

from __future__ import annotations

import pytest
import torch

from qcnode.ensemble import networks
from qcnode.ensemble.blocks import LookingEncoder
from qcnode.ensemble.mambaout import Queried
from qcnode.ensemble.published import log_spectrum, three_spectra
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import INPUT_SHAPE
from train.sampling.fields import watched

# Features, and millions of parameters of a 3-D network with one input channel and no head. ResNet18: torchvision's
# r3d_18 (33.37 with 400 classes). ResNet10, 50, 101: Med3D's (arXiv 1904.00625) with shortcut B. DenseNets: counted
# by hand below. MedNeXt-S is published whole (5.6), below.
PUBLISHED = {
    "resnet10": (512, 14.36),
    "resnet18": (512, 33.17),
    "resnet50": (2048, 46.2),
    "resnet101": (2048, 85.2),
    "densenet169": (1664, 18.5),
    "densenet264": (2688, 40.2),
    "mednext_s": (512, 3.57),
    "mambaout_tiny": (576, 22.9),
    "mambaout_small": (576, 44.9),
    "mambaout_base": (768, 79.4),
}


def millions(module: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def test_every_published_encoder_is_held_to_its_figures() -> None:
    ours = {
        "compact-resnet",
        "mirror-resnet",
        "head-resnet",
        "atlas-resnet",
        "field-unet",
        "tissue-unet",
        "plane-profiles",
        "tile-profiles",
        "lou-cnn",
        "mlmambaout_tiny",
        "mlmambaout_small",
        "mlmambaout_base",
    }  # the figures of the last four are below
    assert {*PUBLISHED, *ours} == set(networks.ENCODERS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_encoder_has_its_published_features_and_size(name: str) -> None:
    features, size = PUBLISHED[name]
    with torch.device("meta"):
        encoder, channels = networks.encoder(name, networks.own_width(name))
        fused, twice = networks.encoder(f"{name}+dft", networks.own_width(name))
    assert channels == features
    assert millions(encoder) == pytest.approx(size, rel=0.02)
    assert (twice, millions(fused)) == (2 * channels, pytest.approx(2 * millions(encoder)))


@pytest.mark.parametrize(("name", "layers"), [("densenet169", (6, 12, 32, 32)), ("densenet264", (6, 12, 64, 48))])
def test_a_densenet_has_the_weights_that_its_table_says(name: str, layers: tuple[int, ...]) -> None:
    """arXiv 1608.06993, Table 1, with cubes for squares: 3-D kernels of 7, 1 and 3, growth 32."""
    channels, weights = 64, 64 * 7**3 + 2 * 64
    for number, count in enumerate(layers):
        for _ in range(count):
            weights += 2 * channels + channels * 128 + 2 * 128 + 128 * 32 * 3**3
            channels += 32
        weights += 2 * channels  # the norm of the transition, or the last
        if number < 3:
            weights += channels * (channels // 2)
            channels //= 2
    with torch.device("meta"):
        assert millions(networks.encoder(name, 64)[0]) == pytest.approx(weights / 1e6)


@pytest.mark.parametrize(
    ("name", "width", "whole"),
    [("mambaout_tiny", 576, 26_545_096), ("mambaout_small", 576, 48_488_072), ("mambaout_base", 768, 84_813_092)],
)
def test_mambaout_with_its_published_head_and_three_colours_has_timms_size(name: str, width: int, whole: int) -> None:
    """arXiv 2405.07992, Table 1, to the last weight of timm's; the head is two layers, four times the features wide."""
    hidden = 4 * width
    head = hidden * (width + 1) + 2 * hidden + 1000 * (hidden + 1)
    with torch.device("meta"):
        encoder, _ = networks.encoder(name, networks.own_width(name))
    colours = 2 * 9 * networks.own_width(name) // 2  # two more of the first convolution's inputs
    assert sum(weight.numel() for weight in encoder.parameters()) + head + colours == whole


def test_mambaout_sees_each_slice_by_itself_and_their_order_changes_nothing() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 1, 5, 64, 64)
    for name in ("mambaout_tiny", "mlmambaout_small"):
        encoder = networks.encoder(name, 2)[0].eval()
        torch.testing.assert_close(encoder(images), encoder(images[:, :, [4, 2, 0, 1, 3]]))
        each = torch.stack([encoder(images[:, :, [index]]) for index in range(5)])
        torch.testing.assert_close(encoder(images), each.mean(0))


def test_zhus_decoder_has_three_fixed_queries_of_768_and_2048_between() -> None:
    with torch.device("meta"):
        encoder, features = networks.encoder("mlmambaout_small", 96)
    assert isinstance(encoder, Queried)
    assert (features, tuple(encoder.decoder.queries.shape), encoder.decoder.attention.num_heads) == (
        3 * 768,
        (3, 768),
        8,
    )
    assert encoder.decoder.mixed[0].out_features == 2048
    assert "queries" not in dict(encoder.decoder.named_parameters())


@pytest.mark.parametrize(
    ("kind", "features", "size", "between", "whole"),
    [("tiny", 576, 768, 2048, 28.9), ("small", 576, 768, 2048, 50.8), ("base", 768, 1024, 2730, 90.0)],
)
def test_zhus_network_has_mambaouts_weights_and_a_decoders(
    kind: str, features: int, size: int, between: int, whole: float
) -> None:
    """arXiv 2111.12933, by hand: features → size, attention's four maps, two layers, three norms."""
    layers = (size + 1) * between + (between + 1) * size
    decoder = (features + 1) * size + 4 * (size + 1) * size + layers + 3 * 2 * size
    pooled = 2 * features  # the norm of MambaOut's pooled features, which the decoder does without
    with torch.device("meta"):
        read, slices = (
            networks.encoder(name, networks.own_width(name))[0] for name in (f"mlmambaout_{kind}", f"mambaout_{kind}")
        )
    assert millions(read) == pytest.approx(whole, abs=0.05)
    assert millions(read) == pytest.approx(millions(slices) + (decoder - pooled) / 1e6, abs=1e-7)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_encoder_of_published_width_runs_forward_and_backward(name: str) -> None:
    torch.manual_seed(0)
    encoder, channels = networks.encoder(name, networks.own_width(name))
    features = encoder(torch.rand(2, 1, *((2, 32, 32) if name.startswith("mambaout") else (32, 32, 32))))
    assert features.shape == (2, channels)
    features.square().sum().backward()
    assert [key for key, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_mednext_is_the_looking_half_of_the_network_of_5_6_million() -> None:
    from monai.networks.nets.mednext import MedNeXtSmall

    with torch.device("meta"):
        whole = MedNeXtSmall(spatial_dims=3, in_channels=1, out_channels=2)
        half, _ = networks.encoder("mednext_s", 32)
    assert millions(whole) == pytest.approx(5.6, rel=0.02)
    halves = [whole.stem, whole.enc_stages, whole.down_blocks, whole.bottleneck]
    assert millions(half) == pytest.approx(sum(millions(part) for part in halves))


@pytest.mark.parametrize("name", [*networks.ENCODERS, "compact-resnet+dft", "densenet169+dft"])
def test_an_encoder_runs_forward_and_backward_and_every_weight_has_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    encoder, channels = networks.encoder(name, 2)
    size = INPUT_SHAPE if isinstance(encoder, LookingEncoder) else (32, 32, 32)
    with watched(encoder) as drawn:
        features = encoder(torch.rand(2, 1, *size))
    assert features.shape == (2, channels)
    # What draws may learn from its truth alone.
    (features.square().sum() + sum(maps.square().sum() for maps in drawn if maps.requires_grad)).backward()
    assert [key for key, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_the_spectrum_does_not_see_where_the_head_is_and_sees_a_tone() -> None:
    image = torch.rand(1, 1, 8, 16, 16)
    torch.testing.assert_close(log_spectrum(image), log_spectrum(image.roll((1, 3, 2), (2, 3, 4))))
    tone = torch.cos(2 * torch.pi * 5 * torch.arange(16) / 16)
    change = log_spectrum(image + tone) - log_spectrum(image)
    assert sorted(change.flatten().topk(2).indices.tolist()) == [5, 11]


def test_an_unknown_encoder_is_named() -> None:
    with pytest.raises(ConfigError, match=r'no encoder "resnet19\+dft"; this version has compact-resnet, mirror-'):
        networks.encoder("resnet19+dft", 2)


def test_lous_networks_have_the_convolutions_of_their_code() -> None:
    encoder, channels = networks.encoder("lou-cnn", 8)
    kernels = [tuple(m.weight.shape) for m in encoder.modules() if isinstance(m, torch.nn.Conv3d)]
    last = [(64, 64, 1, 3, 3)] * 2
    spatial = [(8, 1, 7, 7, 7), (8, 8, 3, 3, 3), (64, 8, 3, 3, 3), *last]
    assert kernels == [*spatial, (16, 3, 7, 7, 7), (16, 16, 3, 3, 3), (64, 16, 3, 3, 3), *last]
    assert encoder(torch.rand(2, 1, 16, 32, 32)).shape == (2, channels) == (2, 128)


def test_three_spectra_of_an_impulse_are_those_of_its_transform() -> None:
    images = torch.zeros(1, 1, 2, 2, 2)
    images[0, 0, 1, 0, 0] = -(8**0.5) * 3  # F = -3 where the slice's frequency is 0, 3 where it is 1; Im F = 0
    real, imaginary, magnitude = three_spectra(images)[0]
    sign = torch.tensor([-1.0, 1.0])[:, None, None].expand(2, 2, 2)
    torch.testing.assert_close(real, sign * torch.log(torch.tensor(4.0)))
    torch.testing.assert_close(imaginary, torch.zeros(2, 2, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(magnitude, torch.log(torch.tensor(4.0)).expand(2, 2, 2))
