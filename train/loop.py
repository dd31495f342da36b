"""The training of one run, read top to bottom: first one encoder on all artifacts, then each artifact's member."""

from __future__ import annotations

import json
import logging
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.artifacts import Artifact
from qcnode.ensemble.calibration import probabilities
from qcnode.ensemble.model import Member, channels_last
from qcnode.ensemble.tissue import TissueUNet
from qcnode.errors import ConfigError
from train import ranks
from train.batching import Batch, epochs_of, rotating_batches, standard_batches
from train.board import log_epoch, write_curve
from train.calibrate import fitted_calibration, log_loss
from train.checkpoint import Stage, averaged, finish, finished, halved, key_of, save_whole, tensors_of
from train.config import FitConfig
from train.dataset import Inputs
from train.losses import loss_of, shared_losses_of
from train.metrics import macro_f1
from train.progress import Pace
from train.reweight import reweighted_loss
from train.sampling.feed import autocast, device, fed, on_device
from train.sampling.fields import fields_loss, watched
from train.sampling.masks import Segmenting, mask_loss
from train.sampling.measures import Measuring, measures_loss
from train.sampling.truth import truth_loss
from train.sampling.variation import also_as_trained
from train.shared import SHARED, Shared

log = logging.getLogger(__name__)
CURVE = "{}.epochs.csv"  # the training loss, validation macro F1 and log loss of every epoch
STATE = "{}.state.safetensors"  # a stage that is not finished, or the note that it is


def fit_shared(
    config: FitConfig,
    artifacts: Sequence[Artifact],
    shared: Shared,
    training: Inputs,
    validation: Inputs,
    out: Path,
    *,
    board: Path | None = None,
) -> Shared:
    """Train one encoder on all these artifacts, and keep its last epoch.

    Saved to `out` after every epoch: an interrupted run is of use, and goes on from there. board: as `fit_member`'s.
    """
    settings = config.of_shared() | {"artifacts": sorted(artifacts)}
    path, key = out / STATE.format("shared"), key_of(settings, training, validation, shared)
    if finished(path, key):
        shared.load_state_dict(load_file(out / SHARED))
        return shared
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    model = ranks.synchronised(channels_last(shared.to(device())))
    size, chosen = 4 * config.blocks, [list(Artifact).index(artifact) for artifact in artifacts]
    loss_functions = shared_losses_of(config, training.labels)
    epochs = [standard_batches(len(training.scans), size, generator) for _ in range(config.shared_epochs)]
    stage = _stage(model, config.shared_learning_rate, config, sum(map(len, epochs)), generator)
    stage.restore(path, key)
    pace = Pace(len(epochs))
    for epoch, batches in list(enumerate(epochs, start=1))[stage.epochs_done :]:
        started, losses = time.monotonic(), []
        model.train()
        varying = ranks.own_generator(generator, [config.seed, epoch])
        for images, labels, planes, _, _, fields, _ in fed(
            training, ranks.shares(batches), frozenset(artifacts), config, varying, f"shared {epoch}/{len(epochs)}"
        ):
            with autocast(config.bf16), watched(shared.encoder) as drawn:
                severity, plane = model(images)
            losses_of = [loss_functions[index](severity[:, :, index], labels[:, index]).losses for index in chosen]
            loss = ranks.joint_mean(torch.stack(losses_of).sum(0)) + config.plane_weight * _plane_loss(plane, planes)
            if fields is not None:
                loss = loss + config.field_weight * fields_loss(drawn, fields) / ranks.count()
            losses.append(_step(loss, stage))
        logits = severity_logits(model, lambda images: model(images)[0], validation, bf16=config.bf16)
        f1 = {a: macro_f1(validation.labels[:, i], logits[:, :, i].argmax(1)) for i, a in enumerate(Artifact)}
        scores = " ".join(f"{artifact}={f1[artifact]:.3f}" for artifact in artifacts)
        seconds = time.monotonic() - started
        told = "epoch_done stage=shared epoch=%d loss=%.4f seconds=%.0f left=%s %s"
        log.info(told, epoch, np.mean(losses), seconds, pace.left(epoch, seconds), scores)
        stage.epochs_done = epoch
        if ranks.is_first():
            save_whole(tensors_of(model), out / SHARED)
            stage.save(path, key)
            if board:
                figures = {f"macro_f1/{artifact}": f1[artifact] for artifact in artifacts}
                log_epoch({"epoch": epoch, "loss": float(np.mean(losses)), **figures}, board / "shared")
    if ranks.is_first():
        finish(path, key)
    ranks.wait()
    return model


def fit_member(
    config: FitConfig,
    artifact: Artifact,
    member: Member,
    training: Inputs,
    validation: Inputs,
    out: Path,
    *,
    board: Path | None = None,
) -> None:
    """Train one artifact's member; keep its best epoch: the lowest calibrated log loss on validation subjects.

    Where it is to see scans without their background, half of those that it is validated on are.
    Ties go to the later epoch. The one before the first step counts, so that a member is never worse than what it began
    as. Writes <artifact>.safetensors and beside it <artifact>.json, which says all that the manifest will.
    board: the folder of TensorBoard's logs, where they are wanted.
    """
    index = list(Artifact).index(artifact)
    settings = config.of_member() | {"artifact": artifact}
    path, key = out / STATE.format(artifact), key_of(settings, training, validation, member)
    if finished(path, key):
        log.info("member_finished_before artifact=%s", artifact)
        return
    torch.manual_seed(config.seed)
    generator = np.random.default_rng([config.seed, index])
    member = ranks.synchronised(channels_last(member.to(device())))
    segmenting = channels_last(Segmenting(member).to(device())) if config.mask_weight else None
    measuring = Measuring(member, artifact).to(device()) if config.measure_weight else None
    validation = also_as_trained(validation, artifact, config.emptied, config.sharpness_jitter)
    target, truth = training.labels[:, index], validation.labels[:, index]
    epochs = _epochs(config, artifact, target, generator)
    loss_function = loss_of(config, target)
    stage = _stage(segmenting or measuring or member, config.learning_rate, config, sum(map(len, epochs)), generator)
    start = {name: tensor.clone() for name, tensor in tensors_of(member).items()}
    stage.restore(path, key)
    pace = Pace(len(epochs))
    member.encoder.requires_grad_(not config.frozen)
    if isinstance(member.encoder, TissueUNet):
        member.encoder.is_given_one = bool(config.truth_weight)
    for epoch, batches in list(enumerate([[], *epochs]))[stage.epochs_done :]:
        started, losses = time.monotonic(), []
        stage.model.train()
        member.encoder.train(not config.frozen)  # the statistics of its norms stay as well
        varying = ranks.own_generator(generator, [config.seed, index, epoch])
        for images, labels, planes, masks, measures, fields, tissues in fed(
            training,
            ranks.shares(batches),
            frozenset({artifact}),
            config,
            varying,
            f"{artifact} {epoch}/{config.epochs}",
        ):
            with autocast(config.bf16), watched(member.encoder) as drawn:
                brain, named = None, None
                if segmenting:
                    output, brain = segmenting(images)
                elif measuring:
                    output, named = measuring(images)
                else:
                    output = member(images)
            severity = labels[:, index]
            terms = loss_function(output.outputs, severity)
            loss = reweighted_loss(output.features, terms, severity) if config.reweight else terms.mean()
            loss = loss + config.plane_weight * _plane_loss(output.plane, planes)
            if brain is not None and masks is not None:
                loss = loss + config.mask_weight * mask_loss(brain, masks) / ranks.count()
            if named is not None and measures is not None:
                loss = loss + config.measure_weight * measures_loss(named, measures) / ranks.count()
            if fields is not None:
                loss = loss + config.field_weight * fields_loss(drawn, fields) / ranks.count()
            if tissues is not None:
                loss = loss + config.truth_weight * truth_loss(drawn, tissues) / ranks.count()
            losses.append(_step(loss, stage))
        kept = averaged(member, start, config.start_share)
        logits = severity_logits(kept, _severity_of(kept), validation, bf16=config.bf16)
        score = macro_f1(truth, probabilities(logits, fitted_calibration(logits, truth)).argmax(1))
        unlikely = log_loss(logits, truth)
        seconds, mean = time.monotonic() - started, float(np.mean(losses)) if losses else float("nan")
        told = "epoch_done artifact=%s epoch=%d loss=%.4f macro_f1=%.4f log_loss=%.4f seconds=%.0f left=%s"
        log.info(told, artifact, epoch, mean, score, unlikely, seconds, pace.left(epoch, seconds))
        figures = {"loss": mean, "macro_f1": score, "log_loss": unlikely, "seconds": round(seconds, 1)}
        stage.history.append({"epoch": epoch, **figures})
        stage.epochs_done, is_best, stage.best = epoch + 1, unlikely <= stage.best, min(unlikely, stage.best)
        if not ranks.is_first():
            continue
        if is_best:
            save_whole(halved(tensors_of(kept)), out / f"{artifact}.safetensors")
            trained = {
                "best_epoch": epoch,
                "validation_macro_f1": score,
                "validation_log_loss": unlikely,
                "training_scans": len(target),
            }
            record = {
                "artifact": artifact,
                "encoder": config.encoder,
                "width": config.encoder_width,
                "ordinal": config.ordinal,
                "training": config.model_dump(mode="json") | trained,
                "commit": _commit(),
            }
            (out / f"{artifact}.json").write_text(json.dumps(record, indent=2) + "\n")
        write_curve(stage.history, out / CURVE.format(artifact))
        if board:
            log_epoch(stage.history[-1], board / artifact)
        stage.save(path, key)
    if ranks.is_first():
        finish(path, key)
    ranks.wait()


def _epochs(
    config: FitConfig, artifact: Artifact, target: NDArray[np.int64], generator: np.random.Generator
) -> list[list[Batch]]:
    """The batches of every epoch."""

    def made(epoch: int) -> list[Batch]:
        if config.batching == "standard":
            return standard_batches(len(target), 4 * config.blocks, generator)
        return rotating_batches(target, epoch, config.blocks, generator)

    try:
        return epochs_of(made, config.epochs, config.epoch_steps)
    except ConfigError as error:
        raise ConfigError(f"{artifact}: {error}") from error


def _severity_of(member: Member) -> Callable[[Tensor], Tensor]:
    return lambda images: member(images).severity


def severity_logits(
    model: nn.Module, severity: Callable[[Tensor], Tensor], data: Inputs, *, bf16: bool
) -> NDArray[np.float32]:
    """What `severity`, a view of the model, says of all images in order, unvaried: (scan, …)."""
    model.eval()
    ranks.average_statistics(model)
    found: dict[int, NDArray[np.float32]] = {}
    mine = range(ranks.rank(), len(data.scans), ranks.count())
    with torch.no_grad(), autocast(bf16):
        for start in range(0, len(mine), 8):
            chosen = mine[start : start + 8]
            images = np.stack([data.images[index] for index in chosen]).astype(np.float32)
            found |= zip(chosen, severity(on_device(images)).float().cpu().numpy(), strict=True)
    said = ranks.merged(found)
    return np.stack([said[index] for index in range(len(data.scans))])


def _stage(
    model: nn.Module, learning_rate: float, config: FitConfig, steps: int, generator: np.random.Generator
) -> Stage:
    """Adam with decoupled weight decay, and a learning rate that anneals to zero over the stage's steps.

    one-cycle warms up first (arXiv 1708.07120); cosine does not (arXiv 1608.03983, without restarts).
    """
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=config.weight_decay, fused=True)
    schedule: torch.optim.lr_scheduler.LRScheduler
    if config.schedule == "cosine":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    else:
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, learning_rate, total_steps=max(steps, 2), pct_start=0.15
        )
    return Stage(model, optimizer, schedule, generator)


def _step(loss: Tensor, stage: Stage) -> float:
    """One step down the loss, whose value it returns; raises ConfigError when that is no longer a number."""
    value = ranks.joint(loss)
    if not value.isfinite():
        raise ConfigError("The loss is no longer a number; set bf16 = false or a lower learning rate, and start again.")
    stage.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    ranks.sum_gradients(stage.model)
    stage.optimizer.step()
    stage.schedule.step()
    return value.item()


def _plane_loss(plane: Tensor, planes: Tensor) -> Tensor:
    return ranks.joint_mean(F.cross_entropy(plane, planes, reduction="none"))


@cache
def _commit() -> str:
    """The commit of the code that trains, with "-dirty" where files differ from it; "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603 - fixed
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
