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
from train.progress import progress
from train.redraw import REDRAWN, can_be_redrawn, redrawn
from train.variation import Image, varied


class Fed(NamedTuple):
    """images: (batch, 1, slice, row, column). labels: (batch, artifact). planes: (batch,)."""

    images: Tensor
    labels: Tensor
    planes: Tensor


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
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, coming_batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, coming_batches, None)
            yield batch


def on_device(images: NDArray[np.float32]) -> Tensor:
    """(batch, slice, row, column) → (batch, 1, slice, row, column), as convolutions run fastest."""
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
    for batch in progress(batches, name):
        labels, planes = data.labels[batch], data.planes[batch]
        images = []
        for slot, index in enumerate(batch):
            if len(artifacts) == 1:
                (artifact,) = artifacts
                image, planes[slot] = _of_severity(data, int(index), artifact, config, generator)
            else:
                image, labels[slot] = _with_fresh_artifacts(data, int(index), artifacts, config, generator)
            images.append(varied(image, artifacts, config, generator))
        rated = (torch.from_numpy(of_batch).to(device()) for of_batch in (labels, planes))
        yield Fed(on_device(np.stack(images)), *rated)


def _of_severity(
    data: Inputs, index: int, artifact: Artifact, config: FitConfig, generator: np.random.Generator
) -> tuple[Image, int]:
    """The scan, or another without the artifact on which it is drawn at this scan's severity; and its plane."""
    column = list(Artifact).index(artifact)
    if artifact not in REDRAWN or generator.random() >= config.redraw:
        return np.asarray(data.images[index], np.float32), int(data.planes[index])
    severity = Severity(int(data.labels[index, column]))
    index = int(generator.choice(np.flatnonzero(data.labels[:, column] == Severity.NONE)))
    image = redrawn(np.asarray(data.images[index], np.float32), artifact, severity, generator)
    return image, int(data.planes[index])


def _with_fresh_artifacts(
    data: Inputs, index: int, artifacts: Set[Artifact], config: FitConfig, generator: np.random.Generator
) -> tuple[Image, NDArray[np.int64]]:
    """The scan with artifacts that it did not have drawn onto it here and there; and its labels then."""
    image, labels = np.asarray(data.images[index], np.float32), data.labels[index].copy()
    for artifact in REDRAWN:
        severities = {a: Severity(int(label)) for a, label in zip(Artifact, labels, strict=True)}
        if artifact not in artifacts or not can_be_redrawn(artifact, severities):
            continue
        if generator.random() < config.shared_redraw:
            severity = Severity(int(generator.integers(len(Severity))))
            image = redrawn(image, artifact, severity, generator)
            labels[list(Artifact).index(artifact)] = severity
    return image, labels
