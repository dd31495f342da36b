"""Contrastive pre-training of an encoder on scans without labels, after Lou et al. (github.com/cyfqylyw/MRIQA).

SimCLR (arXiv 2002.05709): two views of a scan are to be more alike than views of different scans.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.artifacts import Artifact
from qcnode.ensemble.model import channels_last
from qcnode.ensemble.networks import encoder as built_encoder
from qcnode.ensemble.published import FourierFusion
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import CUBE
from train.batching import Batch
from train.checkpoint import Stage, save_whole, tensors_of
from train.config import FitConfig
from train.progress import progress
from train.sampling.feed import autocast, device, on_device
from train.sampling.variation import Image, drawn

log = logging.getLogger(__name__)
PRETRAINED = "encoder.safetensors"
STATE = "encoder.state.safetensors"
_PROJECTION = 128  # Lou et al.'s; the projection is thrown away
_EVERY_ARTIFACT = frozenset(Artifact)


class Projected(nn.Module):
    """An encoder and the projection of its features in which views are compared (SimCLR, §2.1).

    The two halves of a Fourier fusion have a projection each: they share nothing, so that each learns on its own, as
    Lou et al.'s do.
    """

    def __init__(self, encoder: str, width: int) -> None:
        super().__init__()
        self.encoder, channels = built_encoder(encoder, width)
        halves = 2 if isinstance(self.encoder, FourierFusion) else 1
        size = channels // halves
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, _PROJECTION)) for _ in range(halves)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """(batch, 1, slice, row, column) → a projection (batch, 128) of each half."""
        features = self.encoder(images).float().chunk(len(self.projections), 1)
        with torch.autocast(images.device.type, enabled=False):
            return [project(half) for project, half in zip(self.projections, features, strict=True)]


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The normalised, temperature-scaled cross-entropy of SimCLR (arXiv 2002.05709, eq. 1), mean over all views.

    Each view is to name, by cosine similarity over the temperature, the other view of its scan among all others.
    first, second: (scans, channels), row by row the two views of a scan; two scans at least.
    """
    views = F.normalize(torch.cat([first, second]), dim=1)
    similarity = views @ views.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    scans = len(first)
    other = torch.arange(2 * scans, device=views.device).roll(scans)
    return F.cross_entropy(similarity, other)


def view(image: Image, config: FitConfig, generator: np.random.Generator) -> Image:
    """The image as another scan of the same quality could show it: mirrored, transposed, shifted, brightened.

    Nothing that changes the severity of an artifact, which the encoder would learn not to see.
    """
    lowest = image.min() if config.preprocessing == CUBE else np.float32(0)  # the air, which a shift lets in
    variation = drawn(_EVERY_ARTIFACT, config.model_copy(update={"variation": "full"}), generator)
    return variation.of(image - lowest) + lowest


def pretrain(config: FitConfig, names: Sequence[str], images: Sequence[NDArray[np.float16]], out: Path) -> None:
    """Train the configuration's encoder on these network inputs and write it to `out`; an interrupted run goes on.

    names: of the scans, by which a run knows whether it is the same.
    """
    if len(images) < 2:
        raise ConfigError("There are fewer than two scans to tell apart; name a folder with more.")
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    model = channels_last(Projected(config.encoder, config.encoder_width).to(device()))
    size = min(config.pretrain_batch, len(images))
    epochs = [_batches(len(images), size, generator) for _ in range(config.pretrain_epochs)]
    optimizer = torch.optim.AdamW(model.parameters(), config.pretrain_learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(sum(map(len, epochs)), 1))
    stage, key = Stage(model, optimizer, schedule, generator), json.dumps([config.of_pretraining(), list(names)])
    stage.restore(out / STATE, key)
    for epoch, batches in list(enumerate(epochs, start=1))[stage.epochs_done :]:
        started, losses = time.monotonic(), []
        model.train()
        for first, second in _views(images, progress(batches, f"pretrain {epoch}/{len(epochs)}"), config, generator):
            with autocast(config.bf16):
                projected = model(torch.cat([first, second]))
            losses_of = [nt_xent(its[: len(first)], its[len(first) :], config.temperature) for its in projected]
            loss = torch.stack(losses_of).sum()
            if not loss.isfinite():
                raise ConfigError("The loss is no longer a number; set bf16 = false or a lower learning rate.")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        mean, seconds = float(np.mean(losses)), time.monotonic() - started
        log.info("epoch_done stage=pretrain epoch=%d loss=%.4f seconds=%.0f", epoch, mean, seconds)
        stage.history.append({"epoch": epoch, "loss": mean, "seconds": round(seconds, 1)})
        stage.epochs_done = epoch
        told = {"encoder": config.encoder, "width": str(config.encoder_width)}
        save_whole(tensors_of(model.encoder), out / PRETRAINED, told)
        stage.save(out / STATE, key)


def start_from_pretrained(encoder: nn.Module, config: FitConfig, run: Path, name: str) -> None:
    """Give the encoder the values of the run's pre-trained one; leave it, and say so, where that is of another kind."""
    path = run / PRETRAINED
    with safe_open(path, "pt") as file:
        theirs = file.metadata()
    if (theirs["encoder"], theirs["width"]) == (config.encoder, str(config.encoder_width)):
        encoder.load_state_dict(load_file(path))
    else:
        log.warning(
            "%s starts from chance: %s is %s of width %s, not %s of width %d; set both alike to start from there.",
            name,
            path,
            theirs["encoder"],
            theirs["width"],
            config.encoder,
            config.encoder_width,
        )


def _batches(scans: int, size: int, generator: np.random.Generator) -> list[Batch]:
    """The scans in a new order; batches are whole, since a loss depends on how many scans it tells apart."""
    order = generator.permutation(scans)
    return [order[start : start + size] for start in range(0, scans - size + 1, size)]


def _views(
    images: Sequence[NDArray[np.float16]], batches: Iterable[Batch], config: FitConfig, generator: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Two views of every scan of each batch, each (scans, 1, slice, row, column)."""
    for batch in batches:
        chosen = [np.asarray(images[int(index)], np.float32) for index in batch]
        first, second = (np.stack([view(image, config, generator) for image in chosen]) for _ in range(2))
        yield on_device(first), on_device(second)
