"""Scans of a batch → tensors: drawn anew where that is asked for, varied, and made while the model learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcnode.artifacts import Artifact, Severity
from train.batching import Batch
from train.config import FitConfig
from train.dataset import Inputs
from train.looks import varied_look
from train.measures import targets_of
from train.progress import progress
from train.redraw import REDRAWN, can_be_redrawn, redrawn
from train.variation import Half, Image, drawn


class Masks(NamedTuple):
    """shares: (batch, 1, slice, row, column), of brain. known: (batch,), whether the scan has a mask."""

    shares: Tensor
    known: Tensor


class Fed(NamedTuple):
    """images: (batch, 1, slice, row, column), or looks (batch, figure). labels: (batch, artifact). planes: (batch,).

    masks, measures (batch, measure): where one artifact's member is trained on them as well.
    """

    images: Tensor
    labels: Tensor
    planes: Tensor
    masks: Masks | None
    measures: Tensor | None = None


def fed(
    data: Inputs,
    batches: Sequence[Batch],
    artifacts: Set[Artifact],
    config: FitConfig,
    generator: np.random.Generator,
    name: str,
) -> Iterator[Fed]:
    """The batches on the device, with a progress bar; each is made in a thread while the one before is used."""
    coming_batches = _made(data, batches, artifacts, config, generator, name)
    # One thread of torch's, too: a second team of them would take turns with the network's at every operation.
    with ThreadPoolExecutor(1, "feed", torch.set_num_threads, (1,)) as pool:
        coming = pool.submit(next, coming_batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, coming_batches, None)
            yield batch


def on_device(images: NDArray[np.float32]) -> Tensor:
    """(batch, slice, row, column) → (batch, 1, slice, row, column), as convolutions run fastest; looks as they are."""
    if images.ndim == 2:
        return torch.from_numpy(images).to(device())
    return torch.from_numpy(images)[:, None].to(device()).contiguous(memory_format=torch.channels_last_3d)


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _made(
    data: Inputs,
    batches: Sequence[Batch],
    artifacts: Set[Artifact],
    config: FitConfig,
    generator: np.random.Generator,
    name: str,
) -> Iterator[Fed]:
    targets = None
    if len(artifacts) == 1 and config.measure_weight:
        (artifact,) = artifacts
        targets = targets_of(data.measured or [{}] * len(data.scans), artifact)
    for batch in progress(batches, name):
        labels, planes = data.labels[batch], data.planes[batch]
        measures = None if targets is None else targets[batch]
        masks: list[Image | None] = []
        first = data.images[batch[0]]
        images = np.zeros((len(batch), *first.shape), np.float32)
        for slot, index in enumerate(batch):
            if first.ndim == 1:
                images[slot] = _look(data, int(index), config, generator)
                continue
            mask = None
            if len(artifacts) == 1:
                (artifact,) = artifacts
                image, planes[slot], mask, is_fresh = _of_severity(data, int(index), artifact, config, generator)
                if is_fresh and measures is not None:
                    measures[slot] = np.nan
            else:
                image, labels[slot] = _with_fresh_artifacts(data, int(index), artifacts, config, generator)
            variation = drawn(artifacts, config, generator)
            variation.into(images[slot], image)
            masks.append(None if mask is None else variation.of_mask(np.asarray(mask, np.float32) / np.float32(255)))
        severities, named = (torch.from_numpy(of_batch).to(device()) for of_batch in (labels, planes))
        found = _masks(masks, first.shape) if len(artifacts) == 1 and config.mask_weight else None
        named_too = None if measures is None else torch.from_numpy(measures).to(device())
        yield Fed(on_device(images), severities, named, found, named_too)


def _look(data: Inputs, index: int, config: FitConfig, generator: np.random.Generator) -> Image:
    look = np.asarray(data.images[index], np.float32)
    if config.variation == "none":
        return look
    return varied_look(config.encoder, look, data.scans[index].plane, generator)


def _masks(masks: Sequence[Image | None], shape: tuple[int, ...]) -> Masks:
    shares = np.stack([np.zeros(shape, np.float32) if mask is None else mask for mask in masks])
    return Masks(on_device(shares), torch.tensor([mask is not None for mask in masks], device=device()))


def _of_severity(
    data: Inputs, index: int, artifact: Artifact, config: FitConfig, generator: np.random.Generator
) -> tuple[Image | Half, int, NDArray[np.uint8] | None, bool]:
    """The scan, or another without the artifact on which it is drawn at this scan's severity; its plane; its mask.

    Last whether it is the other one.
    The mask of a scan whose voxels are moved here is no longer true: it has none.
    """
    column = list(Artifact).index(artifact)
    if artifact not in REDRAWN or generator.random() >= config.redraw:
        mask = data.masks[index] if data.masks and config.mask_weight else None
        return data.images[index], int(data.planes[index]), mask, False
    severity = Severity(int(data.labels[index, column]))
    index = int(generator.choice(np.flatnonzero(data.labels[:, column] == Severity.NONE)))
    image = redrawn(data.images[index], artifact, severity, generator)
    kept = data.masks and config.mask_weight and artifact is not Artifact.DISTORTION
    return image, int(data.planes[index]), data.masks[index] if kept else None, True


def _with_fresh_artifacts(
    data: Inputs, index: int, artifacts: Set[Artifact], config: FitConfig, generator: np.random.Generator
) -> tuple[Image | Half, NDArray[np.int64]]:
    """The scan with artifacts that it did not have drawn onto it here and there; and its labels then."""
    image: Image | Half = data.images[index]
    labels = data.labels[index].copy()
    for artifact in REDRAWN:
        severities = {a: Severity(int(label)) for a, label in zip(Artifact, labels, strict=True)}
        if artifact not in artifacts or not can_be_redrawn(artifact, severities):
            continue
        if generator.random() < config.shared_redraw:
            severity = Severity(int(generator.integers(len(Severity))))
            image = redrawn(image, artifact, severity, generator)
            labels[list(Artifact).index(artifact)] = severity
    return image, labels
