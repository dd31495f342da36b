"""The training of one run, read top to bottom: first one encoder on all artifacts, then each artifact's member."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.calibration import probabilities
from qcnode.ensemble.model import Member, channels_last
from qcnode.ensemble.networks import encoder as built_encoder
from qcnode.errors import ConfigError
from train.batching import Batch, rotating_batches, standard_batches
from train.calibrate import fitted_calibration
from train.config import FitConfig
from train.dataset import Inputs
from train.metrics import macro_f1
from train.progress import progress
from train.redraw import REDRAWN, can_be_redrawn, redrawn
from train.reweight import reweighted_loss
from train.variation import Image, varied

log = logging.getLogger(__name__)
SHARED = "shared.safetensors"
T = TypeVar("T")


class Shared(nn.Module):
    """One encoder with a severity head for every artifact: where the members start from."""

    def __init__(self, encoder: str, width: int) -> None:
        super().__init__()
        self.encoder, channels = built_encoder(encoder, width)
        self.severity = nn.Linear(channels, len(Artifact) * len(Severity))
        self.plane = nn.Linear(channels, len(Plane))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 1, slice, row, column) → severity logits (batch, 3, artifact), plane logits (batch, 3)."""
        features = self.encoder(images).float()
        with torch.autocast(images.device.type, enabled=False):
            return self.severity(features).view(-1, len(Severity), len(Artifact)), self.plane(features)

    def member(self, artifact: Artifact, encoder: str, width: int) -> Member:
        """A member that begins with this encoder and these heads."""
        member = Member(encoder, width)
        member.encoder.load_state_dict(self.encoder.state_dict())
        member.plane.load_state_dict(self.plane.state_dict())
        index = list(Artifact).index(artifact)
        classes, channels = member.severity.weight.shape
        with torch.no_grad():
            member.severity.weight.copy_(self.severity.weight.view(classes, len(Artifact), channels)[:, index])
            member.severity.bias.copy_(self.severity.bias.view(classes, len(Artifact))[:, index])
        return member


def fit_shared(
    config: FitConfig,
    artifacts: Sequence[Artifact],
    training: Inputs,
    validation: Inputs,
    out: Path,
    start: Path | None = None,
) -> Shared:
    """Train one encoder on all these artifacts; each one's three severities weigh alike, and the last epoch is kept.

    start: weights of an earlier run to go on from. Saved to `out` after every epoch: an interrupted run is of use.
    """
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    model = Shared(config.encoder, config.width)
    if start is not None:
        model.load_state_dict(load_file(start))
    model = channels_last(model.to(_device()))
    size, chosen = 4 * config.blocks, torch.tensor([list(Artifact).index(a) for a in artifacts], device=_device())
    weights = _severity_weights(training.labels).to(_device())
    epochs = [standard_batches(len(training.scans), size, generator) for _ in range(config.shared_epochs)]
    optimizer, schedule = _optimizer(model, config.shared_learning_rate, config, sum(map(len, epochs)))
    for epoch, batches in enumerate(epochs):
        started, losses = time.monotonic(), []
        model.train()
        for images, labels, planes in _ahead(
            _batches(training, batches, frozenset(artifacts), config, generator, f"shared {epoch + 1}")
        ):
            with _autocast(config):
                severity, plane = model(images)
            labels = labels[:, chosen]
            losses_of = F.cross_entropy(severity[:, :, chosen], labels, reduction="none") * weights[chosen, labels]
            loss = losses_of.mean(0).sum() + F.cross_entropy(plane, planes)
            losses.append(_step(loss, optimizer, schedule))
        logits = _logits(model, lambda images: model(images)[0], validation, config)
        f1 = {a: macro_f1(validation.labels[:, i], logits[:, :, i].argmax(1)) for i, a in enumerate(Artifact)}
        scores = " ".join(f"{artifact}={f1[artifact]:.3f}" for artifact in artifacts)
        seconds = time.monotonic() - started
        log.info(
            "epoch_done stage=shared epoch=%d loss=%.4f seconds=%.0f %s", epoch + 1, np.mean(losses), seconds, scores
        )
        save_file(_contiguous(model), out / SHARED)
    return model


def fit_member(
    config: FitConfig, artifact: Artifact, shared: Shared | None, training: Inputs, validation: Inputs, out: Path
) -> None:
    """Train one artifact's member; keep its best epoch: the highest calibrated macro F1 on validation subjects.

    Ties go to the later epoch. The one before the first step counts, so that a member is never worse than what it began
    as.
    Writes <artifact>.safetensors and beside it <artifact>.json, which says all that the manifest will.
    """
    index = list(Artifact).index(artifact)
    torch.manual_seed(config.seed)
    generator = np.random.default_rng([config.seed, index])
    member = shared.member(artifact, config.encoder, config.width) if shared else Member(config.encoder, config.width)
    member = channels_last(member.to(_device()))
    target = training.labels[:, index]
    count, size = config.epochs, 4 * config.blocks
    if config.batching == "rotating":
        try:
            epochs = [rotating_batches(target, epoch, config.blocks, generator) for epoch in range(count)]
        except ConfigError as error:
            raise ConfigError(f"{artifact}: {error}") from error
    else:
        epochs = [standard_batches(len(target), size, generator) for _ in range(count)]
    optimizer, schedule = _optimizer(member, config.learning_rate, config, sum(map(len, epochs)))
    best = -1.0
    for epoch, batches in enumerate([[], *epochs]):
        started, losses = time.monotonic(), []
        member.train()
        for images, labels, planes in _ahead(
            _batches(training, batches, frozenset({artifact}), config, generator, f"{artifact} {epoch}/{count}")
        ):
            with _autocast(config):
                output = member(images)
            severity = labels[:, index]
            loss = (
                reweighted_loss(output.features, output.severity, severity)
                if config.reweight
                else F.cross_entropy(output.severity, severity)
            ) + F.cross_entropy(output.plane, planes)
            losses.append(_step(loss, optimizer, schedule))
        logits = _logits(member, lambda images: member(images).severity, validation, config)
        truth = validation.labels[:, index]
        score = macro_f1(truth, probabilities(logits, fitted_calibration(logits, truth)).argmax(1))
        seconds, loss_ = time.monotonic() - started, float(np.mean(losses)) if losses else float("nan")
        log.info(
            "epoch_done artifact=%s epoch=%d loss=%.4f macro_f1=%.4f seconds=%.0f",
            artifact,
            epoch,
            loss_,
            score,
            seconds,
        )
        if score >= best:
            best = score
            save_file(_contiguous(member), out / f"{artifact}.safetensors")
            record = {
                "artifact": artifact,
                "encoder": config.encoder,
                "width": config.width,
                "training": config.model_dump(mode="json")
                | {"best_epoch": epoch, "validation_macro_f1": score, "training_scans": len(target)},
                "commit": _commit(),
            }
            (out / f"{artifact}.json").write_text(json.dumps(record, indent=2) + "\n")


def _ahead(batches: Iterator[T]) -> Iterator[T]:
    """The same batches; each is made in a thread while the model learns from the one before."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _batches(
    data: Inputs,
    batches: Sequence[Batch],
    artifacts: Set[Artifact],
    config: FitConfig,
    generator: np.random.Generator,
    name: str,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """images (batch, 1, slice, row, column), labels (batch, artifact), planes (batch,), with a progress bar."""
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
        device = _device()
        yield _on_device(np.stack(images)), torch.from_numpy(labels).to(device), torch.from_numpy(planes).to(device)


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


def _logits(
    model: nn.Module, severity: Callable[[Tensor], Tensor], data: Inputs, config: FitConfig
) -> NDArray[np.float32]:
    """What `severity`, a view of the model, says of all images in order, unvaried."""
    model.eval()
    found = []
    with torch.no_grad(), _autocast(config):
        for start in range(0, len(data.scans), 8):
            images = np.stack(data.images[start : start + 8]).astype(np.float32)
            found.append(severity(_on_device(images)).float().cpu().numpy())
    return np.concatenate(found)


def _on_device(images: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(images)[:, None].to(_device()).contiguous(memory_format=torch.channels_last_3d)


def _optimizer(
    model: nn.Module, learning_rate: float, config: FitConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam whose learning rate warms up and then anneals to zero over the run's steps (arXiv 1708.07120)."""
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=config.weight_decay)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=max(steps, 2), pct_start=0.15
    )


def _severity_weights(labels: NDArray[np.int64]) -> Tensor:
    """(artifact, severity): a scan's weight, whose mean over the scans is 1. labels: (scan, artifact)."""
    counts = np.stack([np.bincount(column, minlength=len(Severity)) for column in labels.T])
    return torch.from_numpy(len(labels) / (len(Severity) * np.maximum(counts, 1))).float()


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> float:
    """One step down the loss, whose value it returns."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    schedule.step()
    return loss.item()


def _autocast(config: FitConfig) -> torch.autocast:
    return torch.autocast(_device().type, torch.bfloat16, enabled=config.bf16)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _contiguous(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def _commit() -> str:
    """The commit of the code that trains, with "-dirty" where files differ from it; "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - fixed
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
