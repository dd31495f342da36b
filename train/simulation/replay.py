"""The record beside a simulated scan → that scan again, to the same voxels.

A record says what was drawn; of the head, whose tissue signals and texture are fields, it holds the state of the
generator that drew them. The same versions of NumPy, SciPy and PyTorch give the same voxels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np

from qcnode.artifacts import Plane
from qcnode.errors import ConfigError
from train.simulation.acquire import Simulated, apply
from train.simulation.brains import Source, anatomy
from train.simulation.contrasts import head
from train.simulation.draws import Draw
from train.simulation.scans import CleanScan, Grid, Pose

Record = dict[str, Any]

# What a replay reads of a record: of the contract's simulation, and of a copy.
NEEDED = (
    *("subject", "source", "plane", "weighting", "brain_length_mm", "fluid", "head_generator"),
    *("pose", "grid", "blur_voxels", "contrast", "gain", "draw", "measured"),
)
COPY_NEEDED = ("scan", "draw", "effects")
_ROUNDING = 1e-3  # by which what is measured may differ from what was, relative to it: between processors


def is_of_copy(record: Record) -> bool:
    """Whether it is the record of a copy of a rated scan (train/simulation/copies.py)."""
    return record.get("preset") == "paper"


def read_record(path: Path) -> Record:
    """The record in a JSON file; raises ConfigError where it is none, or lacks what a replay reads."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON; name the record beside a simulated scan.") from error
    record = record if isinstance(record, dict) else {}
    if lacking := [key for key in (COPY_NEEDED if is_of_copy(record) else NEEDED) if key not in record]:
        raise ConfigError(
            f"{path} lacks {', '.join(lacking)}, as records of older versions do; "
            "only scans that are simulated anew can be replayed."
        )
    return record


def as_record(scan: CleanScan) -> Record:
    """A clean scan but for its head, as JSON holds it."""
    return {
        "pose": asdict(scan.pose),
        "grid": {"shape": scan.grid.shape, "spacing_mm": scan.grid.spacing_mm},
        "blur_voxels": scan.blur_voxels,
        "contrast": scan.contrast,
    }


def replayed(found: Sequence[Source], record: Record) -> Simulated:
    """The scan that the record was written of; its head is the one of these that has the record's name and file.

    Raises ConfigError where none has, or where another scan comes out.
    """
    named = [s for s in found if (s.subject, s.path and s.path.name) == (record["subject"], record["source"])]
    if not named:
        lost = record["source"] or record["subject"]
        raise ConfigError(f"{lost} is not among the brains; name the folder that the scan was made from.")
    generator = np.random.default_rng()
    generator.bit_generator.state = record["head_generator"]
    weighting, length_mm = record["weighting"], record["brain_length_mm"]
    its_head = head(anatomy(named[0]), weighting, length_mm, generator, fluid=record["fluid"])
    pose = Pose(*(tuple(record["pose"][key]) for key in ("angles_degrees", "offset_mm")))
    grid = Grid(Plane(record["plane"]), *(tuple(record["grid"][key]) for key in ("shape", "spacing_mm")))
    scan = CleanScan(its_head, grid, pose, record["blur_voxels"], record["contrast"])
    simulated = apply(scan, Draw.from_json(record["draw"]))
    refuse_another(simulated.measured, record["measured"])
    return simulated


def refuse_another(measured: Mapping[Any, float], recorded: Mapping[str, float]) -> None:
    """Raise ConfigError where something measured on a replayed scan is not what the record says, but for rounding."""
    for key, value in measured.items():
        if not isclose(value, recorded.get(key, np.nan), rel_tol=_ROUNDING, abs_tol=1e-6):
            raise ConfigError(
                f"{key} is {value:.4g} now, which the record says otherwise; name the folder that the scan was made "
                "from, and replay it with the version that made it."
            )
