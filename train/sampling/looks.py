"""What an encoder's fixed part makes of scans, made once; and how it varies from epoch to epoch."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from qcnode.artifacts import Plane
from qcnode.ensemble.atlas import ATLAS
from qcnode.ensemble.blocks import LookingEncoder, blocks_of
from qcnode.ensemble.mirror import FIGURES, HALVES
from qcnode.ensemble.networks import encoder as built_encoder
from qcnode.ensemble.profiles import PROFILES
from qcnode.imaging.preprocess import BLOCKS_SHAPE
from train.dataset import Inputs
from train.progress import progress

Look = NDArray[np.float32]

_BRIGHTER = 0.05  # standard deviation of the log of a scan's intensity scale
_CURVED = 0.2  # of the log of an exponent
_SHIFT = 2  # blocks along the mirror plane, at most
_EMPTY_SHARE = 0.25  # of scans seen as if their background were zero, as some reconstructions deliver it
_AT_A_TIME = 100  # scans


def looks(encoder: str) -> bool:
    """Whether the encoder has a fixed part."""
    return encoder in _VARIATIONS


def looked_at(encoder: str, data: Inputs, cache: Path) -> Inputs:
    """The scans with looks (figure,) in place of their images, which may be network inputs or blocks.

    cache: the folder in which the looks are kept, under the encoder and a digest of the scans' names.
    """
    digest = hashlib.sha256("\n".join(scan.path.name for scan in data.scans).encode()).hexdigest()
    path = cache / f"looks-{encoder}-{digest[:16]}.npy"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        made = _made(encoder, data.images)
        partial_file = path.with_suffix(".partial")
        with partial_file.open("wb") as file:
            np.save(file, made)
        partial_file.replace(path)
    return replace(data, images=list(np.load(path)), masks=())


class Varied(NamedTuple):
    """A varied look, and along which axis of the scan it is mirrored; None where no fields are asked for."""

    look: Look
    mirrored: int | None = None


def varied_look(encoder: str, look: Look, plane: Plane, generator: np.random.Generator) -> Varied:
    """The look as it would be of the scan mirrored, transposed or a little brighter."""
    return _VARIATIONS[encoder](look, plane, generator)


def _made(encoder: str, images: Sequence[NDArray[np.float16]]) -> NDArray[np.float16]:
    """(scan, figure), by two processes where there are many scans."""
    if len(images) <= _AT_A_TIME:
        return _looks_of(encoder, images)
    chunks = [images[start : start + _AT_A_TIME] for start in range(0, len(images), _AT_A_TIME)]
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(2, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(_looks_of, encoder, chunk) for chunk in chunks]
        return np.concatenate([future.result() for future in progress(futures, f"look: {encoder}")])


def _looks_of(encoder: str, images: Sequence[NDArray[np.float16]]) -> NDArray[np.float16]:
    network, _ = built_encoder(encoder, 1)
    assert isinstance(network, LookingEncoder)
    found = []
    with torch.no_grad():
        for image in images:
            scan = torch.from_numpy(np.asarray(image, np.float32))
            found.append(network.look(blocks_of(scan[None, None])[0]).numpy().astype(np.float16))
    return np.stack(found)


def _varied_halves(look: Look, _: Plane, generator: np.random.Generator) -> Varied:
    """Turned about the plane's normal by quarters, mirrored and shifted along the plane."""
    halves, figures = look[:-FIGURES].reshape(HALVES), look[-FIGURES:]
    halves = np.rot90(halves, int(generator.integers(4)), (2, 3))
    if generator.random() < 0.5:
        halves = np.flip(halves, 3)
    halves = np.roll(halves, tuple(generator.integers(-_SHIFT, _SHIFT + 1, 2)), (2, 3))
    scale = np.ones((HALVES[0], 1, 1, 1), np.float32)
    scale[:2] = np.exp(_BRIGHTER * generator.standard_normal())  # of the image, not of its outline
    return Varied(np.concatenate([(halves * scale).ravel(), figures]))


def _varied_profiles(look: Look, _: Plane, generator: np.random.Generator) -> Varied:
    """Axes mirrored, which turns the signs of steps, rows and columns exchanged, and the air's channels emptied."""
    profiles = look.reshape(PROFILES).copy()
    if generator.random() < _EMPTY_SHARE:
        profiles[:, PROFILES[1] // 2 :] = 0
    for axis in range(PROFILES[0]):
        if generator.random() < 0.5:
            length = np.flatnonzero(np.abs(profiles[axis]).sum(0))
            if length.size:
                seen = slice(0, int(length[-1]) + 1)
                profiles[axis][:, seen] = profiles[axis][:, seen][:, ::-1] * _SIGNS[:, None]
    if generator.random() < 0.5:
        profiles[[1, 2]] = profiles[[2, 1]]
    return Varied(profiles.ravel())


def _varied_head(look: Look, plane: Plane, generator: np.random.Generator) -> Varied:
    """Left for right, a little brighter, on another curve of intensities: heads lie in no other way than they do."""
    blocks, figures = look[:-FIGURES].reshape(BLOCKS_SHAPE), look[-FIGURES:]
    if generator.random() < 0.5:
        blocks = np.flip(blocks, _ACROSS[plane])
    gain = np.float32(np.exp(_BRIGHTER * generator.standard_normal()))
    exponent = np.float32(np.exp(_CURVED * generator.standard_normal()))
    return Varied(np.concatenate([((gain * blocks) ** exponent).ravel(), figures]).astype(np.float32))


def _varied_whole(look: Look, plane: Plane, generator: np.random.Generator) -> Varied:
    """Left for right, and a little brighter: a curve of intensities would change a shading."""
    blocks, figures = look[:-FIGURES].reshape(BLOCKS_SHAPE), look[-FIGURES:]
    across = _ACROSS[plane] if generator.random() < 0.5 else None
    if across is not None:
        blocks = np.flip(blocks, across)
    gain = np.float32(np.exp(_BRIGHTER * generator.standard_normal()))
    return Varied(np.concatenate([(gain * blocks).ravel(), figures]).astype(np.float32), across)


def _varied_atlas(look: Look, plane: Plane, generator: np.random.Generator) -> Varied:
    """Its halves as any, and on the atlas left for right, and shifted by a place: so far off are heads laid down."""
    halves, cubes = look[: -np.prod(ATLAS)], look[-np.prod(ATLAS) :].reshape(ATLAS)
    if generator.random() < 0.5:
        cubes = np.flip(cubes, 1)
    cubes = np.roll(cubes, tuple(generator.integers(-1, 2, 3)), (1, 2, 3))
    return Varied(np.concatenate([_varied_halves(halves, plane, generator).look, cubes.ravel()]))


_ACROSS = {Plane.AXIAL: 2, Plane.CORONAL: 2, Plane.SAGITTAL: 0}  # the axis of a network input from ear to ear
_SIGNS = np.array([-1, -1, -1, 1] * 2, np.float32)  # of a step and of a plane's size, in the other direction
_VARIATIONS: dict[str, Callable[[Look, Plane, np.random.Generator], Varied]] = {
    "mirror-resnet": _varied_halves,
    "head-resnet": _varied_head,
    "atlas-resnet": _varied_atlas,
    "field-unet": _varied_whole,
    "plane-profiles": _varied_profiles,
}
