"""Every preset is valid, and what it names exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcnode.artifacts import Artifact
from qcnode.ensemble.networks import own_width
from qcnode.errors import ConfigError
from train.config import PRESETS, read_config

NAMES = sorted(path.stem for path in PRESETS.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_valid_for_every_member_and_its_encoders_exist(name: str) -> None:
    config = read_config(Path(name))
    assert config == read_config(PRESETS / f"{name}.toml")
    for artifact in Artifact:
        its = config.of(artifact)
        assert its.encoder_width == (its.width or own_width(its.encoder))
    assert (PRESETS / f"{name}.toml").read_text().startswith("# ")


def test_every_preset_is_in_the_documentation() -> None:
    told = (PRESETS.parents[1] / "docs" / "training-reference.md").read_text()
    assert [name for name in NAMES if f"`{name}`" not in told] == []


def test_briqa_is_the_papers_choice_and_its_two_readings_differ_in_distortion_alone() -> None:
    text, table = ({a: read_config(Path(name)).of(a) for a in Artifact} for name in ("briqa", "briqa-table"))
    chosen = ["densenet169"] * 3 + ["resnet18"] * 3
    assert [its.encoder for its in text.values()] == [*chosen, "mednext_s"]
    assert [its.encoder for its in table.values()] == [*chosen, "densenet169"]
    assert [a for a in Artifact if text[a] != table[a]] == [Artifact.DISTORTION]
    for its in text.values():
        assert (its.learning_rate, its.schedule, its.epochs, its.blocks) == (1e-5, "cosine", 150, 1)
        assert its.reweight
        assert (its.preprocessing, its.variation) == ("cube-1", "none")
        assert its.batching == "rotating"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preprocessing": "cube-9"}, "choose from grid-1, cube-1"),
        ({"preprocessing": "cube-1"}, 'variation is "half-turn" or "none"'),
        ({"preprocessing": "cube-1", "variation": "none"}, "compact-resnet reckons with intensities"),
        ({"members": {"Noise": {"preprocessing": "cube-1"}}}, "the same for all members"),
        ({"members": {"Zipper": {"epoch": 3}}}, r"members\.Zipper: epoch: Extra inputs are not permitted"),
        ({"members": {"Zipper": {"epochs": -1}}}, r"members\.Zipper: epochs: .* greater than or equal to 0"),
        ({"members": {"Zipper": {"loss": "corn", "label_smoothing": 0.1}}}, "label_smoothing goes with"),
    ],
)
def test_what_cannot_be_trained_is_refused_when_it_is_read(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_config(None, **values)


def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ConfigError, match=r"presets/absent\.toml cannot be read"):
        read_config(Path("absent"))
