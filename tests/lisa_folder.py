"""A tiny folder in the LISA layout: blocky heads whose brightness pattern tells their severity."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np

from qcnode.artifacts import Artifact, Plane

SHAPES = {Plane.AXIAL: (120, 146, 30), Plane.CORONAL: (120, 30, 134), Plane.SAGITTAL: (30, 146, 120)}


def write_lisa_folder(folder: Path, subjects: int, seed: int = 0) -> None:
    """One scan a subject and plane, the labels cycling through 0, 1, 2."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(1, subjects + 1):
        for turn, plane in enumerate(Plane):
            severity = (number + turn) % 3
            array = generator.normal(100, 2 + 20 * severity, SHAPES[plane])
            grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPES[plane]), indexing="ij")
            array[sum(g**2 for g in grid) > 0.8] = 1
            spacing = [1.6, 1.6, 1.6]
            spacing[SHAPES[plane].index(30)] = 5
            name = f"LISA_{number:04d}_run-{turn:03d}_LF_{plane.suffix}.nii.gz"
            nib.save(nib.Nifti1Image(array.astype(np.float32), np.diag([*spacing, 1.0])), folder / name)
            rows.append([name, *[severity] * len(Artifact)])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["filename", *Artifact], *rows])
