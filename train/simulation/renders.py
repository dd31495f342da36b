"""Heads rendered straight onto blocks of voxels: thousands of scans, as coarse as some encoders look at them.

What tells how a head lies, is bent, shaded or banded is as large as the head. An encoder that begins by averaging
blocks of 4 × 4 pixels (qcnode/ensemble/blocks.py) sees the same in a scan that was never finer, and such a scan is made
many times faster. Positioning, Banding, Contrast and Distortion are drawn and measured as in `simulate`; noise is there
as it is after averaging. Motion and zippers, much of which is finer than a block, are there where they are asked for,
as far as blocks show them: so that they are not taken for what is as large as the head.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import BLOCK, INPUT_SHAPE, INTENSITY_RANGE, foreground_mean, oriented
from qcnode.imaging.volume import Volume
from train.dataset import Inputs, Scan, subject_name
from train.progress import progress
from train.sampling.fields import Fields, fields_of
from train.sampling.measures import MEASURES
from train.simulate import ADULT_LENGTH_MM, PHANTOMS, choose
from train.simulation import acquire
from train.simulation.brains import Source, anatomy, phantoms, sources
from train.simulation.contrasts import WEIGHTING_SHARES, WEIGHTINGS, Head, head
from train.simulation.draws import Draw, Levels, draw
from train.simulation.physics import contrast
from train.simulation.scans import CleanScan, Grid, Rendered, clean_scan, render
from train.simulation.severity import OutOfContract, is_forbidden, severity_of
from train.simulation.shapes import Shapes, compared, registered, reshaped
from train.simulation.upright import frame_of

log = logging.getLogger(__name__)

RENDERED = (Artifact.POSITIONING, Artifact.BANDING, Artifact.CONTRAST, Artifact.DISTORTION)
_PARTS_SCANS = 400  # in one file
_SCANS_A_HEAD = 8  # as a head takes longer than a scan of it
_LEVEL_SHARES = (0.5, 0.25, 0.25)  # of each artifact's severities, one artifact apart from another
_NOISE_SHARES = (0.6, 0.25, 0.15)
_MOVING_SHARES = {Artifact.MOTION: (0.5, 0.25, 0.25), Artifact.ZIPPER: (0.7, 0.15, 0.15)}


class Sampling(NamedTuple):
    """How a head is sampled for its blocks, and what is lost when voxels are not made first.

    along: samples along a block's row and column. through: of a slice's thickness. contrast_left: of grey and white;
    median of forty heads. tone_left: of a line's amplitude in the air. motion_left: of the difference that a movement
    makes, most of which is at edges. refuses_pale: a head whose grey and white look alike; else it keeps what it has.
    """

    along: int
    through: int
    contrast_left: float
    tone_left: float
    motion_left: float
    refuses_pale: bool


FINE = Sampling(2, 2, 0.94, 0.5, 1.0, refuses_pale=True)
COARSE = Sampling(1, 1, 0.6, 0.25, 0.5, refuses_pale=False)  # of a head that is itself averaged to half a block


class Render(NamedTuple):
    """One scan: blocks (slice, row, column), what it knows of every place, and what `simulate` writes beside one."""

    blocks: NDArray[np.float16]
    fields: Fields | None
    labels: list[int]
    plane: Plane
    measured: dict[str, float]


def render_corpus(
    brains_folder: Path,
    out: Path,
    count: int,
    seed: int,
    *,
    moving: bool = False,
    subjects: Sequence[str] | None = None,
    workers: int = 2,
) -> None:
    """Write `count` renders into `out`, some hundreds in a file; files that are there already, and full, stay.

    moving: some with motion, and some with zippers. subjects: only of these, each head in shapes that are drawn from
    all of theirs; None: of everybody, as they are.
    """
    found = sources(brains_folder) + phantoms(PHANTOMS)
    if subjects is not None:
        found = [source for source in found if subject_name(source.patient) in set(subjects)]
    if subjects is not None and len(found) < 2:
        raise ConfigError(
            f"{brains_folder} holds too few of these subjects; name the folder and the split of a corpus."
        )
    out.mkdir(parents=True, exist_ok=True)
    parts = [min(_PARTS_SCANS, count - first) for first in range(0, count, _PARTS_SCANS)]
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        shapes = None
        if subjects is not None:
            shares = [each.result() for each in progress([pool.submit(_shares, one) for one in found], "heads")]
            shapes = Shapes(registered(shares, pool.map), {its.name: index for index, its in enumerate(found)})
        jobs = [pool.submit(_write_part, found, shapes, out, seed, *part, moving) for part in enumerate(parts)]
        for future in progress(jobs, "render"):
            future.result()


def _shares(source: Source) -> NDArray[np.float32]:
    return compared(anatomy(source))


def read_renders(folder: Path) -> Inputs:
    """The folder's renders, whose images are blocks; raises ConfigError for a folder without any."""
    scans, images, labels, planes, measured = [], [], [], [], []
    fields: list[Fields | None] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as part:
            record = json.loads(str(part["record"]))
            images += list(part["blocks"])
            if "fields" in part:
                fields += [Fields(*each) for each in zip(part["fields"], part["poses"], strict=True)]
            else:  # rendered by an earlier version
                fields += [None] * len(part["blocks"])
        for number, (subject, plane, its) in enumerate(
            zip(record["subjects"], record["planes"], record["labels"], strict=True)
        ):
            name = f"{subject}_copy-{path.stem}-{number}_{Plane(plane).suffix}.nii.gz"  # is_copy: never measured on
            scans.append(Scan(folder / name, subject, Plane(plane), tuple(its)))
        labels += record["labels"]
        planes += [list(Plane).index(Plane(plane)) for plane in record["planes"]]
        measured += record["measured"]
    if not scans:
        raise ConfigError(f"{folder} holds no renders; make them with `python -m train render`.")
    return Inputs(scans, images, np.array(labels, np.int64), np.array(planes, np.int64), (), measured, fields)


def _write_part(
    found: Sequence[Source], shapes: Shapes | None, out: Path, seed: int, number: int, count: int, moving: bool
) -> None:
    path = out / f"renders-{seed}-{number:04d}.npz"
    if path.is_file() and _count_in(path) >= count:
        return
    generator = np.random.default_rng([seed, number])
    renders: list[Render] = []
    subjects: list[str] = []
    while len(renders) < count:
        source = choose(found, generator)
        weighting = str(generator.choice(WEIGHTINGS, p=WEIGHTING_SHARES))
        length_mm = ADULT_LENGTH_MM * float(generator.uniform(0.65, 1.05))
        its = head(anatomy(source), weighting, length_mm, generator)
        if shapes:
            its = reshaped(its, frame_of(anatomy(source).brain), shapes.of(source.name), shapes.drawn(generator))
        made = _scans_of(its, generator, moving)
        renders += made
        subjects += [subject_name(source.patient)] * len(made)
    record = {
        "subjects": subjects[:count],
        "planes": [render.plane.value for render in renders[:count]],
        "labels": [render.labels for render in renders[:count]],
        "measured": [render.measured for render in renders[:count]],
    }
    blocks = np.stack([render.blocks for render in renders[:count]])
    known = [render.fields for render in renders[:count] if render.fields is not None]
    fields, poses = np.stack([its.maps for its in known]), np.stack([its.pose for its in known])
    partial_file = path.with_suffix(".partial")
    with partial_file.open("wb") as file:
        np.savez(file, blocks=blocks, fields=fields, poses=poses, record=np.array(json.dumps(record)))
    partial_file.replace(path)


def _count_in(path: Path) -> int:
    with np.load(path) as part:
        return len(json.loads(str(part["record"]))["labels"])


def _scans_of(its: Head, generator: np.random.Generator, moving: bool) -> list[Render]:
    """Renders of one head; a draw whose severities cannot be reached is left out."""
    made = []
    for _ in range(_SCANS_A_HEAD):
        scan = clean_scan(its, list(Plane)[generator.integers(len(Plane))], generator)
        try:
            drawn = draw(generator, _levels(generator, moving))
            drawn = drawn if moving else replace(drawn, motion_nrms=0.0, zipper_amplitude=0.0)
            made.append(rendered(scan, drawn, generator))
        except OutOfContract as reason:
            log.debug("render_rejected reason=%s", reason)
    return made


def rendered(
    scan: CleanScan,
    drawn: Draw,
    generator: np.random.Generator,
    sampling: Sampling = FINE,
    *,
    has_fields: bool = True,
) -> Render:
    """A drawn scan as blocks of the network input. Raises OutOfContract as `train.simulation.acquire.apply` does.

    has_fields: say what is known of every place.
    """
    measured: dict[str, float] = {}
    pose = acquire.positioned(scan, drawn, measured)
    deformation = acquire.deformation(scan, drawn, pose, measured)
    coarse = _on_blocks(scan, sampling)
    seen = render(coarse, pose, deformation, subslices=sampling.through)
    seen = replace(seen, signal=seen.signal / np.float32(seen.signal[seen.brain > 0.5].mean()))
    covered = _covered(scan.grid, coarse.grid)
    box = tuple(slice(int(np.flatnonzero(c)[0]), int(np.flatnonzero(c)[-1]) + 1) for c in covered)
    inside = Rendered(*(channel[box] for channel in (seen.signal, seen.brain, seen.grey, seen.white)))
    coarse = replace(coarse, grid=replace(coarse.grid, shape=inside.signal.shape))
    if not sampling.refuses_pale:
        most = acquire.LARGEST_BOOST * abs(contrast(inside.signal, inside.grey, inside.white))
        coarse = replace(coarse, contrast=min(coarse.contrast, most))
    signal, shade = acquire.signal_of(coarse, inside, drawn, measured)
    band = acquire.banding(coarse, inside, drawn, measured)
    lines = scan.grid.shape[drawn.phase_axis]
    shading = np.zeros(seen.signal.shape, np.float32)
    shading[box] = np.log(shade)
    moving = replace(drawn, motion_nrms=drawn.motion_nrms * sampling.motion_left)
    image = acquire.in_motion(coarse, inside, signal, moving, pose, measured, lines)
    measured["motion_nrms"] /= sampling.motion_left
    signal = np.abs(image + np.float32(sampling.tone_left) * acquire.tone(image.shape, drawn, measured))
    sigma = measured["noise_sigma"] = drawn.noise_sigma
    labels = {artifact: severity_of(artifact, measured) for artifact in Artifact}
    if wrong := [artifact for artifact in Artifact if labels[artifact] != drawn.levels[artifact.value]]:
        raise OutOfContract(f"{', '.join(wrong)} did not reach the drawn severity; draw the scan again")
    expected = _with_noise_floor(signal, sigma) * band
    scale = foreground_mean(np.abs(expected + sigma * generator.standard_normal(expected.shape, np.float32)))
    values, gain = (np.zeros(seen.signal.shape, np.float32) for _ in range(2))
    values[box], gain[box] = expected / scale, band * np.float32(sigma / scale)
    share = (covered[0][:, None, None] * covered[1][:, None] * covered[2]).astype(np.float32)
    values, gain = (_averaged(each * share, sampling.along) for each in (values, gain))
    # The mean of a block's pixels varies as one pixel does by the root of their number, in the air a little less.
    spread = gain / np.sqrt(np.prod(BLOCK)) * np.where(values < 2 * gain, 0.65, 1.0)
    noisy = values + spread * generator.standard_normal(values.shape)
    measured["contrast_seen"] = abs(measured["clean_contrast"]) * measured["contrast_left"] / sampling.contrast_left
    lying, _ = oriented(Volume(noisy.astype(np.float32), coarse.grid.affine))
    tissues = [each * share for each in (seen.brain, seen.grey, seen.white)]
    return Render(
        np.clip(lying, *INTENSITY_RANGE).astype(np.float16),
        fields_of(coarse.grid, tissues, shading, deformation, pose) if has_fields else None,
        [int(labels[artifact]) for artifact in Artifact],
        scan.grid.plane,
        {key: float(measured[key]) for keys in MEASURES.values() for key in keys},
    )


def _on_blocks(scan: CleanScan, sampling: Sampling) -> CleanScan:
    """The scan on samples of the network input's blocks, which reach beyond the field of view."""
    slice_mm, row_mm, column_mm = scan.grid.spacing_mm
    slices, rows, columns = INPUT_SHAPE
    shape = (slices, rows * sampling.along // BLOCK[1], columns * sampling.along // BLOCK[2])
    spacing_mm = (slice_mm, row_mm * BLOCK[1] / sampling.along, column_mm * BLOCK[2] / sampling.along)
    return replace(scan, grid=Grid(scan.grid.plane, shape, spacing_mm), contrast=scan.contrast * sampling.contrast_left)


def _covered(grid: Grid, coarse: Grid) -> list[NDArray[np.float64]]:
    """Along each axis, the share of every coarse sample that the scan's field of view covers."""
    shares = []
    for size, mm, count, coarse_mm in zip(grid.shape, grid.spacing_mm, coarse.shape, coarse.spacing_mm, strict=True):
        from_centre = np.abs(np.arange(count) - (count - 1) / 2) * coarse_mm
        shares.append(np.clip((size * mm / 2 - from_centre) / coarse_mm + 0.5, 0, 1))
    return shares


def _with_noise_floor(signal: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """About the mean of a Rician variable: σ √(π/2) without signal, √(signal² + σ²) with much."""
    little = np.exp(-((signal / max(sigma, 1e-3)) ** 2) / 4)
    floor = sigma**2 * (np.pi / 2 * little + 1 - little)
    return np.asarray(np.sqrt(signal**2 + floor), np.float32)


def _averaged(samples: NDArray[np.float32], along: int) -> NDArray[np.float32]:
    slices, rows, columns = samples.shape
    return np.asarray(samples.reshape(slices, rows // along, along, columns // along, along).mean((2, 4)))


def _levels(generator: np.random.Generator, moving: bool) -> Levels:
    """Severities, each artifact's apart from the others': a head may lie askew and be bent."""
    shares = dict.fromkeys(RENDERED, _LEVEL_SHARES) | {Artifact.NOISE: _NOISE_SHARES}
    shares |= _MOVING_SHARES if moving else {}
    while True:
        drawn = {artifact: Severity(int(generator.choice(3, p=its))) for artifact, its in shares.items()}
        levels = dict.fromkeys(Artifact, Severity.NONE) | drawn
        if not is_forbidden(levels):
            return levels
