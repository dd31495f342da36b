"""Scans of a batch → tensors: drawn anew where that is asked for, varied, and made while the model learns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qcnode.artifacts import Artifact
from train.batching import Batch
from train.config import FitConfig
from train.dataset import Inputs
from train.progress import progress
from train.sampling.fields import Drawn, batch_of
from train.sampling.measures import targets_of
from train.sampling.samples import sample_into, sources_of
from train.sampling.truth import Truth, truth_of
from train.sampling.variation import Image


class Masks(NamedTuple):
    """shares: (batch, 1, slice, row, column), of brain. known: (batch,), whether the scan has a mask."""

    shares: Tensor
    known: Tensor


class Fed(NamedTuple):
    """images: (batch, 1, slice, row, column), or looks (batch, figure). labels: (batch, artifact). planes: (batch,).

    masks, measures (batch, measure), fields, truth: where a member is trained on them as well.
    """

    images: Tensor
    labels: Tensor
    planes: Tensor
    masks: Masks | None
    measures: Tensor | None = None
    fields: Drawn | None = None
    truth: Truth | None = None


def fed(
    data: Inputs,
    batches: Sequence[Batch],
    artifacts: Set[Artifact],
    config: FitConfig,
    generator: np.random.Generator,
    name: str,
) -> Iterator[Fed]:
    """The batches on the device, with a progress bar; as many scans of one are made at a time as there are cores.

    A batch is made while the one before is used, where that leaves a core free; else between two uses. On a CPU its
    images lie where those of the batch before last lay: memory that is new each time costs more than what is written.
    """
    # One thread of torch's each: a team of them would take turns with the network's, or another scan's, at every step.
    with ThreadPoolExecutor(_cores(), "scan", torch.set_num_threads, (1,)) as scans:
        made = _made(scans, data, batches, artifacts, config, generator, name)
        yield from made if _takes_all_cores() else _ahead(made)


def _ahead(made: Iterator[Fed]) -> Iterator[Fed]:
    with ThreadPoolExecutor(1, "feed", torch.set_num_threads, (1,)) as feed:
        coming = feed.submit(next, made, None)
        while (batch := coming.result()) is not None:
            coming = feed.submit(next, made, None)
            yield batch


def _takes_all_cores() -> bool:
    """Whether the network does; what runs beside it then holds it up for longer than if it had waited."""
    return device().type == "cpu" and torch.get_num_threads() >= _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def on_device(images: NDArray[np.float32]) -> Tensor:
    """(batch, slice, row, column) → (batch, 1, slice, row, column), as convolutions run fastest; looks as they are."""
    if images.ndim == 2:
        return torch.from_numpy(images).to(device())
    return torch.from_numpy(images)[:, None].to(device()).contiguous(memory_format=torch.channels_last_3d)


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(bf16: bool) -> torch.autocast:
    """bfloat16 where it is asked for and the device computes in it.

    A processor that has to emulate it takes ten times as long as in float32.
    """
    kind = device().type
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    native = kind != "cpu" or (onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    return torch.autocast(kind, torch.bfloat16, enabled=bf16 and native)


def _made(
    scans: Executor,
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
    sources = sources_of(data, artifacts, config)
    drawing = partial(sample_into, sources)
    places = [np.empty(0, np.float32)] * 2
    for turn, batch in enumerate(progress(batches, name)):
        shape = (len(batch), *sources.shape(batch[0]))
        if places[turn % 2].shape != shape:
            places[turn % 2] = np.empty(shape, np.float32)
        images = places[turn % 2]
        seeds = generator.integers(2**63, size=len(batch)).tolist()
        made = list(scans.map(drawing, images, batch.tolist(), seeds))
        severities = torch.from_numpy(np.stack([scan.labels for scan in made])).to(device())
        planes = torch.tensor([scan.plane for scan in made], device=device())
        masks, measures, fields, truth = None, None, None, None
        if len(artifacts) == 1 and config.mask_weight:
            masks = _masks([scan.mask for scan in made], images.shape[1:])
        if targets is not None:
            known = targets[batch]
            for slot, scan in enumerate(made):
                if scan.measured is not None:
                    known[slot] = targets_of([scan.measured], artifact)[0]
            measures = torch.from_numpy(known).to(device())
        if config.field_weight:
            fields = batch_of([scan.fields for scan in made], device())
        if len(artifacts) == 1 and config.truth_weight:
            truth = truth_of([scan.truth for scan in made], device())
        yield Fed(on_device(images), severities, planes, masks, measures, fields, truth)


def _masks(masks: Sequence[Image | None], shape: tuple[int, ...]) -> Masks:
    shares = np.stack([np.zeros(shape, np.float32) if mask is None else mask for mask in masks])
    return Masks(on_device(shares), torch.tensor([mask is not None for mask in masks], device=device()))
