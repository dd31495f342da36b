"""Rigid motion while k-space is filled, drawn onto a finished scan: turns and shifts of its slices, and between them.

A finished scan knows nothing of what lies between its slices or beyond its pixels; what it shows of a movement is near
enough to learn from beside simulated scans, and no two draws are alike. Sampling a scan anew smooths its noise, the
more the more it moves: all are turned a little first, whatever the severity, and fresh noise is laid over them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qcnode.artifacts import Artifact, Severity
from train.sampling.variation import sharpened
from train.simulation import draws
from train.simulation.acquire import LARGEST_MOVEMENT, around_centre, filled_at, pose_of_line
from train.simulation.severity import MOTION_NRMS, OutOfContract

Image = NDArray[np.float32]

_SLICE_MM, _PIXEL_MM = 5.0, 1.6  # of a network input, near enough
_EVERY = 6  # slices of which one tells how much a movement changes
_SHARPER = (-0.4, 1.2)  # times what a mean of 3 x 3 pixels takes away
_LYING = (6.0, 1.0)  # degrees within the slices and mm, at most: how askew a head is before it moves
_NOISE = (0.0, 0.03)  # of each part of the signal, in means of the foreground
_STATES = 7  # of a head that never lies still
_STEADY = 0.5  # share of heads that lie still between abrupt movements
_ATTEMPTS, _STEPS = 4, 5


def moved(
    image: Image,
    brain: NDArray[np.bool_],
    severity: Severity,
    generator: np.random.Generator,
    *,
    apart: int = 1,
    lies_askew: bool = True,
) -> Image:
    """The scan (slice, row, column), which fills its field of view, as if its head had moved by this severity.

    brain: of the scan's shape; the difference to the unmoved scan, which may be sharper or smoother than `image`, is
    measured there, and lies in the severity's interval. apart: of a scan's slices these are every so manieth.
    lies_askew: it is turned a little first (module); False: what is known of its places stays true, near enough.
    Raises OutOfContract where no movement changes it by so much.
    """
    still, slice_mm = torch.from_numpy(image), apart * _SLICE_MM
    if lies_askew:
        askew = np.array([generator.uniform(-1, 1) * _LYING[0], 0, 0, 0, *generator.uniform(-1, 1, 2) * _LYING[1]])
        still = _posed(still, askew, slice_mm)
    still = sharpened(still, 1 + float(generator.uniform(*_SHARPER))).clamp(min=0)
    found = _mixed(still, torch.from_numpy(brain), severity, generator, slice_mm)
    noise = torch.from_numpy(generator.standard_normal((2, *image.shape), np.float32))
    noise *= float(generator.uniform(*_NOISE))
    return np.asarray(torch.hypot(found.real + noise[0], found.imag + noise[1]).numpy())


def _mixed(still: Tensor, brain: Tensor, severity: Severity, generator: np.random.Generator, slice_mm: float) -> Tensor:
    """The complex image of a head that moved: movements are drawn until one changes the brain as it should."""
    interval = MOTION_NRMS[severity]
    if not brain.any():
        raise OutOfContract("there is no brain in this scan whose movement could be measured; take another scan")
    every = torch.arange(len(still))
    some = every[_EVERY // 2 :: _EVERY]
    if not brain[some].any():  # of a short brain among slices that lie apart, none may be seen
        some = every
    for _ in range(_ATTEMPTS):
        drawn = draws.draw(generator, dict.fromkeys(Artifact, Severity.NONE) | {Artifact.MOTION: severity})
        if drawn.motion_nrms == 0:
            return still.to(torch.complex64)
        state, poses = _states(drawn, still.shape[drawn.phase_axis], generator)
        poses, scale = around_centre(poses, state), 1.0 + 12.0 * drawn.motion_nrms
        for step in range(_STEPS):
            slices = every if step == _STEPS - 1 else some
            image = _filled(still, poses * scale, state, drawn.phase_axis, slices, slice_mm)
            reached = _nrms(image.abs(), still[slices], brain[slices])
            if abs(reached / drawn.motion_nrms - 1) < 0.05 and slices is some:
                image = _filled(still, poses * scale, state, drawn.phase_axis, every, slice_mm)
                reached = _nrms(image.abs(), still, brain)
            if len(image) == len(still) and reached in interval:
                return image
            scale *= float(np.clip(drawn.motion_nrms / max(reached, 1e-6), 0.3, 2.5))
            if scale > LARGEST_MOVEMENT:
                break
    raise OutOfContract("no plausible movement changes this scan by as much as the severity says; take another scan")


def _states(
    drawn: draws.Draw, lines: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which pose each line was filled in, and the poses (n, 6): abrupt movements, or a steady drift or swing."""
    poses = np.array([angles + shifts for angles, shifts in drawn.motion_poses])
    if generator.random() < _STEADY:
        return pose_of_line(drawn, lines), poses
    time = filled_at(drawn.motion_order, lines, generator)
    course = 2 * time - 1
    if generator.random() < 0.5:
        course = np.sin(2 * np.pi * (generator.uniform(1, 8) * time + generator.uniform()))
    state = ((course + 1) / 2 * _STATES).astype(np.int64).clip(0, _STATES - 1)
    return state, np.linspace(-1, 1, _STATES)[:, None] * poses[0]


def _filled(
    still: Tensor, poses: NDArray[np.float64], state: NDArray[np.int64], axis: int, slices: Tensor, slice_mm: float
) -> Tensor:
    """These slices' image where each line along `axis` was filled in its pose (lowest frequency in the middle)."""
    of_frequency = np.fft.ifftshift(state)
    mixed = torch.zeros((len(slices), *still.shape[1:]), dtype=torch.complex64)
    for number in np.unique(of_frequency):
        mine = torch.from_numpy(np.flatnonzero(of_frequency == number))
        lines = torch.fft.fft(_posed(still, poses[number], slice_mm, slices), dim=axis)
        mixed.index_copy_(axis, mine, lines.index_select(axis, mine))
    image: Tensor = torch.fft.ifft(mixed, dim=axis)
    return image


def _posed(still: Tensor, pose: NDArray[np.float64], slice_mm: float, slices: Tensor | None = None) -> Tensor:
    """These slices of a head that turned by three angles (degrees) and moved by three ways (mm), about their axes."""
    slices = torch.arange(len(still)) if slices is None else slices
    (about_slice, about_row, about_column), (across, down, along) = np.deg2rad(pose[:3]).tolist(), pose[3:].tolist()
    rows, columns = still.shape[1:]
    y, x = (torch.linspace(-n / 2, n / 2, n) * _PIXEL_MM for n in (rows, columns))
    # Where in the stack each place's signal comes from, in slices.
    depth = (across + math.tan(about_row) * y[:, None] + math.tan(about_column) * x) / slice_mm
    there = torch.zeros((len(slices), rows, columns))
    for offset in range(int(depth.min().floor()), int(depth.max().ceil()) + 1):
        share = (1 - (depth - offset).abs()).clamp(min=0)
        there += share * still[(slices + offset).clamp(0, len(still) - 1)]
    cos, sin = math.cos(about_slice), math.sin(about_slice)
    shift = (2 * along / (columns * _PIXEL_MM), 2 * down / (rows * _PIXEL_MM))
    turn = torch.tensor([[cos, -sin * rows / columns, shift[0]], [sin * columns / rows, cos, shift[1]]])
    grid = F.affine_grid(turn[None], [1, 1, rows, columns], align_corners=False)
    return F.grid_sample(there[None], grid, padding_mode="border", align_corners=False)[0]


def _nrms(image: Tensor, still: Tensor, brain: Tensor) -> float:
    """As physics.nrms."""
    before, after = still[brain], image[brain]
    return float(((after - before).square().mean() / before.square().mean()).sqrt())
