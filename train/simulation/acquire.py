"""A clean scan and a draw → the simulated scan, with every artifact measured on it.

The order follows the physics: distortion and positioning move the anatomy, contrast and shading change its signal,
motion mixes k-space, the tone and the noise are added to k-space, and banding multiplies the image.

TorchIO's transforms are not used: their parameters say how a transform is drawn, not what it does to a scan, and the
severity contract is about the latter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qcnode.artifacts import Artifact, Severity
from qcnode.imaging.phantom import mix_poses
from qcnode.imaging.volume import Volume
from train.simulation import deformation as deformations
from train.simulation import physics, severity, shading
from train.simulation.deformation import Deformation
from train.simulation.draws import Draw
from train.simulation.physics import Array, Complex
from train.simulation.scans import DIRECTIONS, CleanScan, Pose, Rendered, moved, render
from train.simulation.severity import OutOfContract

LARGEST_MOVEMENT = 30.0  # scale of the drawn poses, whose angles (degrees) and shifts (mm) are of the order of 1
LARGEST_BOOST = 1.8  # of the contrast of a head as rendered: with more, its texture would look like anatomy


@dataclass(frozen=True)
class Simulated:
    """A finished scan: relative to S = 1, with what was measured on it and the labels that this means.

    brain: where more than half of a voxel is brain, before it moves. truth: what an encoder may learn to draw, also
    before it moves: shares of grey and of white matter, and the logarithm of the shading: (3, slice, row, column).
    """

    volume: Volume
    measured: dict[str, float]
    labels: dict[Artifact, Severity]
    brain: NDArray[np.bool_]
    truth: NDArray[np.float32]


def apply(scan: CleanScan, draw: Draw) -> Simulated:
    """Simulate a drawn scan. Raises OutOfContract where a measured value is not the severity that was drawn."""
    measured: dict[str, float] = {}
    pose = positioned(scan, draw, measured)
    deforming = deformation(scan, draw, pose, measured)
    seen = render(scan, pose, deforming)
    mean = float(seen.signal[seen.brain > 0.5].mean())
    seen = replace(seen, signal=seen.signal / np.float32(mean))
    signal, shade = signal_of(scan, seen, draw, measured)
    band = banding(scan, seen, draw, measured)
    image = in_motion(scan, seen, signal, draw, pose, measured)
    noise = physics.complex_noise(image.shape, draw.noise_sigma, np.random.default_rng(draw.noise_seed))
    measured["noise_sigma"] = physics.noise_sigma(noise)
    finished = np.abs(image + noise + tone(image.shape, draw, measured)) * band
    labels = {artifact: severity.severity_of(artifact, measured) for artifact in Artifact}
    if wrong := [a for a in Artifact if labels[a] != draw.levels[a.value]]:
        raise OutOfContract(f"{', '.join(wrong)} did not reach the drawn severity; draw the scan again")
    truth = np.stack([seen.grey, seen.white, np.log(shade)])
    return Simulated(Volume(finished.astype(np.float32), scan.grid.affine), measured, labels, seen.brain > 0.5, truth)


def positioned(scan: CleanScan, draw: Draw, measured: dict[str, float]) -> Pose:
    """The pose that was drawn, or the clean scan's; tilt, offset and cut go into `measured`."""
    pose = scan.pose
    if draw.tilt_degrees is not None and draw.offset_mm is not None:
        pose = Pose(draw.tilt_degrees, draw.offset_mm)
    if draw.cut_share is not None:
        pose = _until_cut(scan, pose, draw.cut_share)
    angles = [abs(angle) for angle in pose.angles_degrees]
    measured["tilt_degrees"] = max(angles)
    measured["nod_degrees"], measured["lean_degrees"], measured["turn_degrees"] = angles
    measured["offset_mm"] = float(np.linalg.norm(pose.offset_mm))
    measured["cut_share"] = cut_share(scan, pose)
    return pose


def cut_share(scan: CleanScan, pose: Pose) -> float:
    """Share of the brain that lies outside the field of view."""
    points = (scan.head.brain_points_mm @ pose.rotation.T + pose.offset_mm) @ DIRECTIONS[scan.grid.plane]
    half = np.array(scan.grid.shape) * scan.grid.spacing_mm / 2
    return float((np.abs(points) > half).any(axis=1).mean())


def _until_cut(scan: CleanScan, pose: Pose, share: float) -> Pose:
    """Move the head along its offset until the field of view cuts this share of the brain."""
    near, far = 0.0, 200.0
    for _ in range(12):
        distance = (near + far) / 2
        x, y, z = (float(v) * distance for v in pose.offset_mm)
        shifted = Pose(pose.angles_degrees, (x, y, z))
        near, far = (distance, far) if cut_share(scan, shifted) < share else (near, distance)
    return shifted


def deformation(scan: CleanScan, draw: Draw, pose: Pose, measured: dict[str, float]) -> Deformation | None:
    """The deformation of the drawn kind and displacement, as extended as gives the drawn strain, both measured."""
    measured["displacement_mm"] = measured["strain"] = 0.0
    if draw.displacement_mm == 0:
        return None
    generator = np.random.default_rng(draw.distortion_seed)
    brain_mm = scan.head.brain_points_mm.astype(float) @ pose.rotation.T + pose.offset_mm
    directions = DIRECTIONS[scan.grid.plane]
    found = deformations.drawn(
        draw.distortion_kind, brain_mm, draw.displacement_mm, draw.strain, directions.T[1:], generator
    )
    jacobian = found.jacobian(brain_mm)
    half = np.array(scan.grid.shape) * scan.grid.spacing_mm / 2
    corners = np.stack(np.meshgrid(*[np.linspace(-h, h, 9) for h in half], indexing="ij"), -1).reshape(-1, 3)
    everywhere = found.jacobian(corners @ directions.T)
    if min(np.linalg.det(jacobian).min(), np.linalg.det(everywhere).min()) <= severity.SMALLEST_JACOBIAN:
        raise OutOfContract("the drawn distortion folds or nearly folds the anatomy; draw the scan again")
    measured["displacement_mm"] = float(np.linalg.norm(found(brain_mm), axis=1).max())
    measured["strain"] = physics.strain(jacobian)
    return found


def signal_of(scan: CleanScan, seen: Rendered, draw: Draw, measured: dict[str, float]) -> tuple[Array, Array]:
    """The rendered signal with the contrast and the shading that were drawn, both measured, and that shading."""
    native = physics.contrast(seen.signal, seen.grey, seen.white)
    if abs(native) * LARGEST_BOOST < scan.contrast:
        raise OutOfContract("grey and white matter look alike in the clean scan; draw another head")
    # Every clean scan has about the same contrast, so that a loss can be told from a low contrast of its own.
    signal = physics.faded(seen.signal, seen.grey, seen.white, scan.contrast / abs(native))
    clean = physics.contrast(signal, seen.grey, seen.white)
    if draw.contrast_left < 1:
        signal = physics.faded(signal, seen.grey, seen.white, draw.contrast_left)
    measured["contrast_left"] = physics.contrast(signal, seen.grey, seen.white) / clean
    measured["clean_contrast"] = clean
    pattern = shading.drawn(draw.shading_kind, seen.brain, np.random.default_rng(draw.shading_seed))
    field = physics.shading(pattern, seen.brain, draw.shading_ratio)
    measured["shading_ratio"] = physics.shading_ratio(field, seen.brain)
    return np.maximum(signal, 0) * field, field


def in_motion(
    scan: CleanScan,
    seen: Rendered,
    signal: Array,
    draw: Draw,
    pose: Pose,
    measured: dict[str, float],
    lines_filled: int | None = None,
) -> Complex:
    """Scale the drawn poses until the difference to the unmoved scan is the drawn one, and move the signal by them.

    lines_filled: lines of k-space, of which the signal's grid has the lowest frequencies; None: as many as it has.
    """
    still = signal.astype(np.complex64)
    measured["motion_nrms"] = 0.0
    if draw.motion_nrms == 0:
        return still
    lowest = signal.shape[draw.phase_axis]
    lines = pose_of_line(draw, lines_filled or lowest)
    poses = around_centre(np.array([angles + shifts for angles, shifts in draw.motion_poses]), lines)
    first = len(lines) // 2 - lowest // 2
    lines = lines[first : first + lowest]
    centre = np.array(pose.offset_mm)

    def at(scale: float, every: int) -> Complex:
        volumes = [moved(signal, scan.grid, _pose(pose * scale), centre, every) for pose in poses]
        return mix_poses(volumes, lines, draw.phase_axis)

    weak, strong, scale = 0.0, 0.0, 1.0 + 12.0 * draw.motion_nrms
    for _ in range(7):
        reached = physics.nrms(at(scale, 4), signal[::4], seen.brain[::4])  # some slices tell enough
        if abs(reached / draw.motion_nrms - 1) < 0.03:
            break
        weak, strong = (scale, strong) if reached < draw.motion_nrms else (weak, scale)
        step = float(np.clip(draw.motion_nrms / max(reached, 1e-6), 0.3, 2.5))
        scale = scale * step if not strong or not weak else float(np.clip(scale * step, weak * 1.02, strong * 0.98))
        if scale > LARGEST_MOVEMENT:
            raise OutOfContract("no plausible movement gives the drawn difference; draw the scan again")
    image = at(scale, 1)
    measured["motion_nrms"] = physics.nrms(image, signal, seen.brain)
    measured["motion_scale"] = scale
    return image


def around_centre(poses: NDArray[np.float64], lines: NDArray[np.int64]) -> NDArray[np.float64]:
    """The poses (n, 6) relative to their mean over the low frequencies, which decide where the head is seen."""
    frequency = np.arange(len(lines)) - len(lines) // 2
    weight = np.exp(-((frequency / (0.04 * len(lines))) ** 2))
    return np.asarray(poses - np.average(poses[lines], axis=0, weights=weight))


def _pose(values: NDArray[np.float64]) -> Pose:
    a, b, c, x, y, z = (float(v) for v in values)
    return Pose((a, b, c), (x, y, z))


def pose_of_line(draw: Draw, lines: int) -> NDArray[np.int64]:
    """Which pose each k-space line (lowest frequency in the middle) was filled in: time runs through the poses."""
    generator = np.random.default_rng(draw.motion_seed)
    count = len(draw.motion_poses)
    changes = np.sort(generator.uniform(0.05, 0.95, count - 1))
    time = filled_at(draw.motion_order, lines, generator)
    if draw.motion_order == "linear":  # a movement far from the lowest frequencies would hardly be seen
        changes = np.sort(generator.normal(0.5, 0.08, count - 1))
    elif draw.motion_order == "centre-out":  # early movements reach the lowest frequencies, late ones hardly count
        changes = changes**2
    return np.searchsorted(changes, time)


def filled_at(order: str, lines: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """When each k-space line (lowest frequency in the middle) is filled, from 0 to 1; orders as MOTION_ORDER_SHARES."""
    time = np.arange(lines) / lines
    if order == "interleaved":  # echo trains: neighbouring lines are read far apart in time
        train = int(generator.integers(4, 17))
        time = (np.arange(lines) % train + np.arange(lines) / lines) / train
    elif order == "scattered":
        time = generator.permutation(lines) / lines
    elif order == "centre-out":
        time = np.abs(np.arange(lines) - lines // 2 + 0.25).argsort().argsort() / lines
    return time


def tone(shape: tuple[int, ...], draw: Draw, measured: dict[str, float]) -> Complex:
    """The drawn lines (slice, row, column), each where and as strong as it is found to be."""
    slices, rows, columns = shape
    readout, lines = (columns, rows) if draw.phase_axis == 1 else (rows, columns)
    positions = [p * (readout - 1) for p in draw.zipper_positions]
    generator = np.random.default_rng(draw.zipper_seed)
    if draw.zipper_phase == "jumps":
        phases = generator.uniform(0, 2 * np.pi, (len(positions), slices, lines))
    else:  # a drifting frequency: the phase grows with the square of time, and the line is even
        rate = generator.uniform(0.85, 1.0, (len(positions), 1, 1)) * np.pi / lines
        start = generator.uniform(0, 2 * np.pi, (len(positions), slices, 1))
        phases = rate * np.arange(lines) ** 2 + start
    first, last = (round(share * slices) for share in draw.zipper_slices)
    lines_seen = physics.zipper((slices, rows, columns), draw.phase_axis, positions, phases, (first, last))
    lines_seen *= np.float32(draw.zipper_amplitude)
    found = physics.zipper_lines(lines_seen, draw.phase_axis, max(0.7 * draw.zipper_amplitude, 1e-6))
    measured["zipper_lines"] = float(len(found))
    measured["zipper_amplitude"] = min((amplitude for _, amplitude in found), default=0.0)
    return lines_seen


def banding(scan: CleanScan, seen: Rendered, draw: Draw, measured: dict[str, float]) -> Array:
    """A field of bands, dark or bright, whose largest change in the brain is the drawn one, and is measured."""
    axes = np.ogrid[tuple(slice(0, n) for n in scan.grid.shape)]
    unit = [a / (n - 1) - 0.5 for a, n in zip(axes, scan.grid.shape, strict=True)]
    along = sum(u * d for u, d in zip(unit, draw.band_direction, strict=True))
    profile = physics.bands((np.asarray(along) + 0.5).astype(np.float32), draw.bands, draw.band_flat)
    inside = profile[seen.brain > 0.5]
    in_brain = float(inside.max())
    if draw.band_depth > 0 and not physics.are_seen(inside):
        raise OutOfContract("no band's edge crosses the brain; draw the scan again")
    sign = 1.0 if sum(draw.band_direction) > 0 else -1.0
    field = (1 + sign * draw.band_depth / max(in_brain, 0.5) * profile).astype(np.float32)
    measured["band_depth"] = physics.band_depth(field, seen.brain)
    return field
