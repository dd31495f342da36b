"""Two members of an artifact → one whose logits are the mean of theirs, by both of their encoders beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from qcnode.artifacts import Artifact
from qcnode.ensemble.networks import BESIDE
from qcnode.errors import ConfigError
from train.checkpoint import save_whole

_HEADS = ("severity", "plane")


def join(first: Path, second: Path, artifact: Artifact, out: Path) -> None:
    """Write the member to the run's folder `out`, made of those of two run's folders; its own calibration comes later.

    Raises ConfigError for members that cannot be joined.
    """
    (theirs, its), (others, their) = _read(first, artifact), _read(second, artifact)
    if theirs["width"] != others["width"] or theirs["ordinal"] or others["ordinal"]:
        raise ConfigError(f"{first} and {second} differ in width, or one is ordinal; train them alike.")
    tensors = {f"encoder.first.{name}": tensor for name, tensor in _encoders(its).items()}
    tensors |= {f"encoder.second.{name}": tensor for name, tensor in _encoders(their).items()}
    for head in _HEADS:
        weights, biases = ([each[f"{head}.{part}"].float() for each in (its, their)] for part in ("weight", "bias"))
        tensors |= {f"{head}.weight": torch.cat(weights, 1) / 2, f"{head}.bias": torch.stack(biases).mean(0)}
    record = {
        "artifact": artifact,
        "encoder": BESIDE.join([theirs["encoder"], others["encoder"]]),
        "width": theirs["width"],
        "ordinal": False,
        # Where one has learned from scans without their background both are calibrated on such.
        "training": (others["training"] | theirs["training"])
        | {"emptied": max(each["training"].get("emptied") or 0.0 for each in (theirs, others))}
        | {"joined": [theirs["training"], others["training"]]},
        "commit": theirs["commit"],
    }
    out.mkdir(parents=True, exist_ok=True)
    save_whole(tensors, out / f"{artifact}.safetensors")
    (out / f"{artifact}.json").write_text(json.dumps(record, indent=2) + "\n")


def _read(run: Path, artifact: Artifact) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        return json.loads((run / f"{artifact}.json").read_text()), load_file(run / f"{artifact}.safetensors")
    except OSError as error:
        raise ConfigError(f"{run} has no member for {artifact}; run `fit --artifact {artifact}` first.") from error


def _encoders(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("encoder."): its for name, its in tensors.items() if name.startswith("encoder.")}
