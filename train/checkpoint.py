"""A stage of training on disk after every epoch: killed and started again, it goes on as if nothing had happened."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from qcnode.ensemble.model import Member
from train.dataset import Inputs


@dataclass
class Stage:
    """What training carries from one epoch to the next."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: np.random.Generator
    epochs_done: int = 0
    best: float = math.inf  # the lowest log loss so far
    history: list[dict[str, float]] = field(default_factory=list)  # an epoch each

    def save(self, path: Path, key: str) -> None:
        """Write the stage, in place of its last epoch's, under the key of what it is trained from."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"model.{name}": tensor for name, tensor in tensors_of(self.model).items()}
        for index, its in optimizer["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor.cpu().contiguous() for name, tensor in its.items()}
        tensors["random"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        told = {
            "param_groups": optimizer["param_groups"],
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.bit_generator.state,
            "epochs_done": self.epochs_done,
            "best": self.best,
            "history": self.history,
        }
        save_whole(tensors, path, {"key": key, "told": json.dumps(told)})

    def restore(self, path: Path, key: str) -> None:
        """Become the stage that was saved; stay as it is where there is none, or one with another key."""
        if not path.is_file():
            return
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            if metadata["key"] != key:
                return
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        told = json.loads(metadata["told"])
        self.epochs_done, self.best, self.history = told["epochs_done"], told["best"], told["history"]
        self.generator.bit_generator.state = told["generator"]
        self.schedule.load_state_dict(told["schedule"])
        self.model.load_state_dict(_under("model.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer.", tensors).items():
            index, _, quantity = name.partition(".")
            state.setdefault(int(index), {})[quantity] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": told["param_groups"]})
        for weight, its in self.optimizer.state.items():
            for name, value in its.items():
                if value.shape == weight.shape:  # fused Adam takes them by their place in memory, as the weight lies
                    its[name] = torch.empty_like(weight, requires_grad=False).copy_(value)
        torch.set_rng_state(tensors["random"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])


def finish(path: Path, key: str) -> None:
    """Replace the saved stage by the note that it is done."""
    save_whole({}, path, {"key": key, "told": "done"})


def finished(path: Path, key: str) -> bool:
    """Whether the stage with this key is done."""
    if not path.is_file():
        return False
    with safe_open(path, "pt") as file:
        return bool(file.metadata() == {"key": key, "told": "done"})


def key_of(settings: Mapping[str, object], training: Inputs, validation: Inputs, model: nn.Module) -> str:
    """A digest of what a stage's result depends on: its settings, the scans and labels, the weights at its start."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for data in (training, validation):
        digest.update("\n".join(scan.path.name for scan in data.scans).encode())
        digest.update(data.labels.tobytes() + data.planes.tobytes())
        digest.update(bytes(mask is not None for mask in data.masks))
        digest.update(bytes(truth is not None for truth in data.truths))
    for name, tensor in tensors_of(model).items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's weights as they are written."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def averaged(member: Member, start: Mapping[str, Tensor], share: float) -> Member:
    """The member with its weights and statistics averaged with those of its start (WiSE-FT, arXiv 2109.01903).

    share: the start's; 0 gives the member itself. Between the two lies what both know: what the start could do
    elsewhere, and what was learned here.
    """
    if not share:
        return member
    between = deepcopy(member)
    its = between.state_dict()
    between.load_state_dict({k: t.lerp(start[k].to(t), share) if t.is_floating_point() else t for k, t in its.items()})
    return between


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same in half precision, as a weights folder has them: what a run measures is what the node will load."""
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def save_whole(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write the file at once: a kill leaves the old one or the new one, never half of it; OSError for a full disk."""
    partial = path.with_suffix(".partial")
    try:
        save_file(tensors, partial, metadata)
    except SafetensorError as error:  # of the file system's errors it tells the number alone
        if f"(os error {errno.ENOSPC})" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial)) from error
    partial.replace(path)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
