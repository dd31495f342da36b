"""Instances → Volume: what the network and the eye both look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcnode.artifacts import Plane


@dataclass(frozen=True)
class Volume:
    """One stack of slices.

    array: (slice, row, column) float32, rescaled values. affine: (4, 4), from (slice, row, column) indices to RAS mm.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along (slice, row, column)."""
        slice_mm, row_mm, column_mm = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slice_mm), float(row_mm), float(column_mm)

    @property
    def plane(self) -> Plane:
        """The anatomical plane that the slices are closest to."""
        normal = np.abs(self.affine[:3, 0])  # RAS components of the slice direction
        return (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)[int(np.argmax(normal))]
