"""The processes that train one member together, as torchrun starts them (torch.distributed): what each does, and sums.

Each takes its share of every batch. What the loss divides by, the reweighting's gradients and the network's gradients
are summed over all of them, so that they step as one process with the whole batch would. Alone, all of this does
nothing. Only the first one writes; all must see the same folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from train.batching import Batch

Key = TypeVar("Key")
Value = TypeVar("Value")
Module = TypeVar("Module", bound=nn.Module)


@contextmanager
def together() -> Iterator[None]:
    """Among the processes that torchrun started, over NCCL where there are GPUs, one for each process, else Gloo."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def count() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this one writes."""
    return rank() == 0


def wait() -> None:
    """Until all have come here."""
    if count() > 1:
        distributed.barrier()


@contextmanager
def first_one_first() -> Iterator[None]:
    """The first alone makes what is kept on disk; the others then find it there."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def shares(batches: Sequence[Batch]) -> list[Batch]:
    """This process's scans of every batch; a batch with less than two scans for each is left out by all."""
    return [batch[rank() :: count()] for batch in batches if len(batch) >= 2 * count()]


def joint(value: Tensor) -> Tensor:
    """The sum over all processes, without gradient."""
    if count() == 1:
        return value.detach()
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total


def joint_mean(losses: Tensor) -> Tensor:
    """(scan,) → this process's part of the mean over the whole batch: the parts' sum is that mean."""
    return losses.sum() / joint(losses.new_tensor(float(len(losses))))


def sum_gradients(model: nn.Module) -> None:
    """Replace each gradient by its sum over all processes."""
    if count() == 1:
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    total, start = joint(torch.cat([gradient.flatten() for gradient in gradients])), 0
    for gradient in gradients:
        gradient.copy_(total[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def synchronised(model: Module) -> Module:
    """The model with batch norms that see the whole batch, where that can be: among GPUs."""
    if count() > 1 and torch.cuda.is_available():
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return model


def average_statistics(model: nn.Module) -> None:
    """Replace the batch norms' running statistics by their mean over all processes."""
    if count() > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(joint(buffer) / count())


def merged(found: Mapping[Key, Value]) -> dict[Key, Value]:
    """What all found, together."""
    if count() == 1:
        return dict(found)
    each: list[Mapping[Key, Value]] = [{} for _ in range(count())]
    distributed.all_gather_object(each, found)
    return {key: value for its in each for key, value in its.items()}


def own_generator(generator: np.random.Generator, seed: Sequence[int]) -> np.random.Generator:
    """What this process varies its scans and drops features with; alone, the generator as it is.

    seed: of the stage and epoch, so that a run that was interrupted goes on as it would have.
    """
    if count() == 1:
        return generator
    own = np.random.default_rng([*seed, rank()])
    torch.manual_seed(int(own.integers(2**63)))
    return own
