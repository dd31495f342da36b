"""How noisy a scan is, measured: a physical figure beside the ensemble's grade, for the scanner's chart."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from qcnode.imaging.likeness import blocks, head_blocks
from qcnode.imaging.volume import Volume

_AWAY_BLOCKS = 2  # from the head: 10 mm, where neither its blurred edge nor the skin reaches
_LEAST_BLOCKS = 30
_MEAN_OF_RAYLEIGH = np.sqrt(np.pi / 2)  # of unit standard deviation in the real and in the imaginary part


def noise_level(volume: Volume) -> float | None:
    """σ / S: the noise's standard deviation over the median signal of the head. Higher is worse.

    Without signal the magnitude is Rayleigh distributed, of mean σ √(π/2) (Gudbjartsson & Patz 1995,
    doi:10.1002/mrm.1910340618). It is taken in blocks of 5 mm clear of the head, and their median is kept: a zipper's
    line covers few of them. Ghosts of strong motion, which are everywhere, add to it. None where there is no head, or
    too little background that is not filled up.
    """
    of = blocks(volume)
    found = head_blocks(of)
    if found is None:
        return None
    head, _ = found
    inside = ndimage.binary_erosion(head)
    clear = ~ndimage.binary_dilation(head, iterations=_AWAY_BLOCKS) & (of.mean > 0)  # 0: masked, or padding
    if clear.sum() < _LEAST_BLOCKS or inside.sum() < _LEAST_BLOCKS:
        return None
    return float(np.median(of.mean[clear]) / _MEAN_OF_RAYLEIGH / np.median(of.mean[inside]))
