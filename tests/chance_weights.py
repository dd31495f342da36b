"""An ensemble whose seven members chance made: small, and as whole as any."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import save_file

from qcnode.artifacts import Artifact
from qcnode.ensemble.model import Member
from train.export import write_weights


def write_chance_weights(runs: Path, out: Path, name: str = "chance", seed: int = 0) -> Path:
    """The weights folder `out`; `runs` is for what it is made from."""
    runs.mkdir(parents=True, exist_ok=True)
    for number, artifact in enumerate(Artifact, seed):
        torch.manual_seed(number)
        save_file(Member("compact-resnet", 2).state_dict(), runs / f"{artifact}.safetensors")
        record = {"artifact": artifact, "encoder": "compact-resnet", "width": 2}
        (runs / f"{artifact}.json").write_text(json.dumps(record | {"training": {}, "commit": "0" * 40}))
    created = datetime(2026, 1, 1, tzinfo=UTC)
    write_weights(runs, out, name=name, severity_definition="none", contrasts=["T2w"], created=created)
    return out
