"""An encoder learns what bends a head from heads that are bent anew in every batch, before it sees a whole scan."""

from __future__ import annotations

import json
import logging
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from qcnode.artifacts import Artifact, Severity
from qcnode.ensemble.atlas import AtlasResNet
from qcnode.ensemble.mirror import MirrorResNet
from qcnode.ensemble.model import channels_last
from qcnode.ensemble.runtime import load_member
from qcnode.ensemble.weights import read_manifest
from qcnode.errors import ConfigError
from train.calibrate import log_loss
from train.checkpoint import Stage, save_whole, tensors_of
from train.config import FitConfig
from train.metrics import macro_f1
from train.pretrain import PRETRAINED, STATE, start_from_pretrained
from train.progress import Pace, progress
from train.sampling.feed import autocast, device
from train.simulation.bent import Batch, BentHeads
from train.simulation.brains import Source

log = logging.getLogger(__name__)
_EPOCH_BATCHES = 100
_VALIDATION_BATCHES = 12
_UPRIGHT_WEIGHT, _SIZES_WEIGHT = 0.3, 1.0
_UNITS = (2.0, 0.1)  # of displacement in mm and of strain, to whose logarithms a size of 0 adds nothing
_LARGEST_GRADIENT = 5.0


class Bending(nn.Module):
    """The encoder, and what it is asked while it learns: the severity, the sizes, and whether the head is upright."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.encoder = AtlasResNet(width)
        self.dropout = nn.Dropout(dropout)
        self.severity = nn.Linear(AtlasResNet.SEEN, len(Severity))
        self.sizes = nn.Linear(AtlasResNet.SEEN, len(_UNITS))

    def forward(self, cubes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, SIDE, SIDE, SIDE) → logits of the severity (batch, 3), sizes (batch, 2), upright (batch,)."""
        seen = self.dropout(self.encoder.seen_on(cubes))
        with torch.autocast(cubes.device.type, enabled=False):
            seen = seen.float()
            return self.severity(seen), self.sizes(seen), self.encoder.upright(seen)[:, 0]


def bend(
    config: FitConfig,
    training: Sequence[Source],
    validation: Sequence[Source],
    out: Path,
    *,
    start: Path | None = None,
    init: Path | None = None,
    workers: int = 2,
) -> None:
    """Train the configuration's atlas encoder on bent heads of `training`, and write it for `fit --start OUT`.

    An epoch is 100 batches, each of which is new. After it, what the encoder says of bent heads of `validation` is
    logged; the last is kept, and an interrupted run goes on from there. start: a run whose encoder to begin with.
    init: a weights folder whose mirror encoder to put beside it; it is not trained here. Raises ConfigError for
    weights without one, and for another encoder.
    """
    if config.encoder != "atlas-resnet":
        raise ConfigError(
            f'bend trains atlas-resnet, not {config.encoder}; set encoder = "atlas-resnet", or use pretrain.'
        )
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    epochs = config.pretrain_epochs
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        heads = BentHeads(training, config.seed, epochs * _EPOCH_BATCHES, pool.map).with_shapes(pool.map)
        measured_on = BentHeads(validation, config.seed + 1, _VALIDATION_BATCHES, pool.map)
    held_out = list(_made(measured_on, range(_VALIDATION_BATCHES), workers))
    torch.manual_seed(config.seed)
    model = channels_last(Bending(config.encoder_width, config.dropout).to(device()))
    if start and (start / PRETRAINED).is_file():
        start_from_pretrained(model.encoder, config, start, "the encoder")
    if init:
        model.encoder.mirror.load_state_dict(_mirror_of(init).state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), config.pretrain_learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.pretrain_learning_rate, total_steps=max(len(heads), 2), pct_start=0.1
    )
    stage = Stage(model, optimizer, schedule, np.random.default_rng(config.seed))
    key = json.dumps([config.of_pretraining(), config.dropout, [source.name for source in training]])
    stage.restore(out / STATE, key)
    pace = Pace(epochs)
    batches = iter(_made(heads, range(stage.epochs_done * _EPOCH_BATCHES, len(heads)), workers))
    for epoch in range(stage.epochs_done + 1, epochs + 1):
        started, losses = time.monotonic(), []
        model.train()
        for _ in progress(range(_EPOCH_BATCHES), f"bend {epoch}/{epochs}"):
            batch = Batch(*(part.to(device()) for part in next(batches)))
            with autocast(config.bf16):
                said = model(batch.cubes.float())
            loss = _loss(said, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        figures = _figures(model, held_out, config)
        mean, seconds = float(np.mean(losses)), time.monotonic() - started
        told = "epoch_done stage=bend epoch=%d loss=%.4f macro_f1=%.4f log_loss=%.4f seconds=%.0f left=%s"
        log.info(told, epoch, mean, *figures, seconds, pace.left(epoch, seconds))
        stage.history.append({"epoch": epoch, "loss": mean, "macro_f1": figures[0], "log_loss": figures[1]})
        stage.epochs_done = epoch
        about = {"encoder": config.encoder, "width": str(config.encoder_width)}
        save_whole(tensors_of(model.encoder), out / PRETRAINED, about)
        stage.save(out / STATE, key)


def _mirror_of(weights: Path) -> MirrorResNet:
    """The mirror encoder of the weights folder's Distortion member; raises ConfigError where it has none such."""
    entry = next(its for its in read_manifest(weights).members if its.artifact == Artifact.DISTORTION)
    encoder = load_member(weights, entry).encoder
    mirror = encoder.mirror if isinstance(encoder, AtlasResNet) else encoder
    if not isinstance(mirror, MirrorResNet) or (mirror is encoder and entry.width != AtlasResNet.MIRROR_WIDTH):
        raise ConfigError(
            f"Distortion in {weights} is {entry.encoder} of width {entry.width}; name weights where it is mirror-resnet"
            f" of width {AtlasResNet.MIRROR_WIDTH} or atlas-resnet, or leave --init out."
        )
    return mirror


def _made(heads: BentHeads, numbers: Sequence[int], workers: int) -> DataLoader[Batch]:
    """The batches of these numbers, in this order, made by other processes; torch's own generator is left alone."""
    return DataLoader(heads, batch_size=None, sampler=numbers, num_workers=workers, generator=torch.Generator())


def _loss(said: tuple[Tensor, Tensor, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy of the severity and Huber's loss of the sizes of upright heads, and whether a head is upright."""
    logits, sizes, upright = said
    known = batch.is_upright
    severity = F.cross_entropy(logits[known], batch.severities[known])
    sizes_true = torch.log1p(batch.sizes[known] / torch.tensor(_UNITS, device=sizes.device))
    size = F.smooth_l1_loss(sizes[known], sizes_true)
    lying = F.binary_cross_entropy_with_logits(upright, known.float())
    return severity + _SIZES_WEIGHT * size + _UPRIGHT_WEIGHT * lying


def _figures(model: Bending, batches: Sequence[Batch], config: FitConfig) -> tuple[float, float]:
    """Macro F1 and log loss of what the model says of upright heads in these batches."""
    model.eval()
    logits, truth = [], []
    with torch.no_grad(), autocast(config.bf16):
        for batch in batches:
            said, _, _ = model(batch.cubes.float().to(device()))
            logits.append(said.float().cpu()[batch.is_upright])
            truth.append(batch.severities[batch.is_upright])
    found, severities = torch.cat(logits).numpy(), torch.cat(truth).numpy()
    return macro_f1(severities, found.argmax(1)), log_loss(found, severities)
