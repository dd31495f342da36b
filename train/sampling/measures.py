"""What was measured on a simulated scan, as a third task while training: a number says more than the class it lies in.

A severity is an interval of measured quantities (train/simulation/severity.py). To name the quantities themselves, a
network has to find what makes them. Scans that were rated by people have no such numbers, and do not contribute.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.artifacts import Artifact
from qcnode.ensemble.model import Member, Output

# By artifact: what is measured, and the unit in which severities are a few apart. Only what grades it.
MEASURES: dict[Artifact, dict[str, float]] = {
    Artifact.NOISE: {"noise_sigma": 0.1},
    Artifact.ZIPPER: {"zipper_amplitude": 0.3},
    Artifact.POSITIONING: {
        "tilt_degrees": 10.0,
        "nod_degrees": 10.0,  # and the other two: without their signs, which a mirrored scan would turn
        "lean_degrees": 10.0,
        "turn_degrees": 10.0,
        "offset_mm": 10.0,
        "cut_share": 0.1,
    },
    Artifact.BANDING: {"band_depth": 0.15},
    Artifact.MOTION: {"motion_nrms": 0.12},
    Artifact.CONTRAST: {"contrast_seen": 0.1, "shading_ratio": 1.0},
    Artifact.DISTORTION: {"displacement_mm": 5.0, "strain": 0.2},
}
_MOST = 6.0  # units; the offset of a head that is cut is beyond
_BENT_FROM = 0.3  # units: the loss is a square below, straight above


class Measuring(nn.Module):
    """A member, and a head that names its artifact's measures from the same features."""

    def __init__(self, member: Member, artifact: Artifact) -> None:
        super().__init__()
        self.member = member
        self.measures = nn.Linear(member.plane.in_features, len(MEASURES[artifact]))

    def forward(self, images: Tensor) -> tuple[Output, Tensor]:
        """What the member says, and the measures (batch, measure) in their units."""
        output: Output = self.member(images)
        return output, self.measures(output.features)


def measures_of(record: Path) -> dict[str, float]:
    """What `simulate` wrote down beside a scan; nothing where there is no such record."""
    if not record.is_file():
        return {}
    written = json.loads(record.read_text())
    measured: dict[str, float] = written.get("measured", {})
    if "clean_contrast" in measured:
        measured["is_flair"] = float(written.get("weighting") == "FLAIR")
        measured["contrast_seen"] = abs(measured["clean_contrast"]) * measured["contrast_left"]
    return measured


def targets_of(measured: Sequence[Mapping[str, float]], artifact: Artifact) -> NDArray[np.float32]:
    """(scan, measure) in units; not a number where a scan has none."""
    units = MEASURES[artifact]
    rows = [[its.get(key, np.nan) / unit for key, unit in units.items()] for its in measured]
    return np.clip(np.array(rows, np.float32).reshape(-1, len(units)), -_MOST, _MOST)


def measures_loss(said: Tensor, targets: Tensor) -> Tensor:
    """Huber's loss of the measures that are known (doi:10.1214/aoms/1177703732, scaled as torch does); else 0."""
    known = ~targets.isnan()
    if not known.any():
        return said.sum() * 0
    return F.smooth_l1_loss(said[known], targets[known], beta=_BENT_FROM)
