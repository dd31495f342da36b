"""What the paper compares (BRIQA, arXiv 2510.26661): encoders (its Table 2) and configurations (Table 3), as rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from qcnode.artifacts import Artifact
from train.config import FitConfig, read_config


class Scale(StrEnum):
    """How much is computed."""

    SMALL = "small"  # narrow encoders, few epochs: hours on two cores
    PAPER = "paper"  # the published sizes: days on a GPU


@dataclass(frozen=True)
class Row:
    """One line of a table: a name, and each artifact's configuration."""

    name: str
    configs: Mapping[Artifact, FitConfig]

    def but(self, name: str, **changes: object) -> Row:
        """The row with these keys set otherwise."""
        configs = {a: FitConfig.model_validate(its.model_dump() | changes) for a, its in self.configs.items()}
        return Row(name, configs)

    def fused(self, name: str) -> Row:
        """The row with a second encoder on the spectrum."""
        fused = {a: its.model_copy(update={"encoder": f"{its.encoder}+dft"}) for a, its in self.configs.items()}
        return Row(name, fused)


# At the small scale, an encoder's width; the published one at the paper's.
_SMALL_WIDTHS = {"plane-profiles": 16, "compact-resnet": 8}
# Table 2's ten, in its order. Its three MambaOuts are Zhu's multi-label network, one for all artifacts (preset `zhu`).
# Here each artifact has one of its own, with linear heads, so that these rows too differ in nothing but the encoder.
_PAPERS_ENCODERS = (
    *("resnet10", "resnet18", "resnet50", "resnet101"),
    *("densenet169", "densenet264", "mednext_s"),
    *("mambaout_tiny", "mambaout_small", "mambaout_base"),
)
_REGULARIZED = {"weight_decay": 0.01, "dropout": 0.5, "label_smoothing": 0.1}  # the paper does not say with what


def briqa(scale: Scale) -> Row:
    """The method whole: reweighting, rotating batches, cross-entropy, no rotation; the scale's usual encoders."""
    preset = "briqa-table" if scale is Scale.PAPER else "tables-small"
    config = read_config(Path(preset))
    return Row("BRIQA, rotating batches, cross-entropy", {artifact: config.of(artifact) for artifact in Artifact})


def encoders(scale: Scale) -> list[Row]:
    """Table 2: the method with one encoder for all artifacts."""
    method = briqa(scale)
    if scale is Scale.PAPER:
        return [method.but(name, encoder=name) for name in _PAPERS_ENCODERS]
    return [method.but(name, encoder=name, width=width) for name, width in _SMALL_WIDTHS.items()]


def configurations(scale: Scale) -> list[Row]:
    """Table 3, from plain cross-entropy (the first row) to the method (the last but one).

    The last row is not the paper's: rotating batches without reweighting, which tells their effects apart. At the small
    scale no row is rotated or fused: one of its encoders has a fixed part, made once, of the image as it is.
    """
    plain, standard, rotating, method = effects(scale).values()
    turned = {"variation": "half-turn"}
    rows = [
        plain,
        plain.but("cross-entropy, rotated", **turned),
        plain.but("ordinal", loss="corn"),
        plain.but("weighted cross-entropy", loss="weighted"),
        plain.but("regularization", **_REGULARIZED),
        plain.but("regularization, rotated", **_REGULARIZED, **turned),
        plain.fused("DFT fusion"),
        standard,
        standard.but("BRIQA, cross-entropy, rotated", **turned),
        standard.but("BRIQA, ordinal", loss="corn"),
        standard.but("BRIQA, focal", loss="focal"),
        standard.fused("BRIQA, DFT fusion"),
        method,
        rotating,
    ]
    return [row for row in rows if scale is Scale.PAPER or not row.name.endswith((", rotated", "DFT fusion"))]


def effects(scale: Scale) -> dict[tuple[str, bool], Row]:
    """The method with and without reweighting, by batching: four rows of Table 3, by (batching, reweight)."""
    method = briqa(scale)
    standard = {"batching": "standard"}
    return {
        ("standard", False): method.but("cross-entropy", reweight=False, **standard),
        ("standard", True): method.but("BRIQA, cross-entropy", **standard),
        ("rotating", False): method.but("rotating batches, cross-entropy", reweight=False),
        ("rotating", True): method,
    }


def baseline(scale: Scale) -> Row:
    """Table 4's baseline: the challenge's, with its DenseNet; at the small scale, with that scale's usual encoders."""
    if scale is Scale.PAPER:
        config = read_config(Path("baseline"))
        return Row("baseline", {artifact: config.of(artifact) for artifact in Artifact})
    plain = {"reweight": False, "batching": "standard", "plane_weight": 0}
    return briqa(scale).but("baseline", **plain)
