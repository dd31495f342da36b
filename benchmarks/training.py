"""What does the training loop cost beside the network's own arithmetic, and what does it save over the naive form?

python benchmarks/training.py [--encoder compact-resnet] [--width 16] [--batches 60] [--redraw 0.5] [--turns 9]

Samples a second of (a) the naive form: every scan of a batch is drawn anew while the network waits, and each severity's
gradient norm takes a backward pass of its own; (b) the network alone: forward and backward of one batch that is there
already; and the loop as `python -m train fit` runs it: batches made by all cores, norms in closed form, optimizer and
schedule, over an epoch with its validation and saving: as it is by default, and with a share of the scans that have
bands drawn anew, as (a) draws all. All on the same machine, in turns, (b) before and after each loop, on Banding's
member in batches of eight. Turns are short and many, as a machine's speed drifts: the loop's
share of (b) is the median of the turns' own. On a CPU also what of a core each takes, which others on the machine
change less; with OMP_NUM_THREADS=1 no thread's waiting counts in it.

Last, what reweighting itself costs: one batch's severity loss and its way back to the features, with and without it, in
turns, as a share of (b)'s step.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from machine import described
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.model import Member, channels_last
from qcnode.imaging.preprocess import INPUT_SHAPE
from train.config import FitConfig
from train.dataset import Inputs, Scan
from train.loop import fit_member
from train.losses import cross_entropy
from train.reweight import reweighted_loss
from train.sampling.feed import autocast, device, on_device
from train.sampling.redraw import redrawn
from train.sampling.variation import varied
from train.shared import new_member

ARTIFACT = Artifact.BANDING
NAIVE, ALONE = "(a) naive", "(b) forward + backward alone"


class Taken(NamedTuple):
    """By the clock, and of all cores together."""

    seconds: float
    of_a_core: float

    def each(self, samples: int) -> Taken:
        """Of one of so many samples."""
        return Taken(self.seconds / samples, self.of_a_core / samples)


def _now() -> Taken:
    return Taken(time.perf_counter(), time.process_time())


def _since(started: Taken) -> Taken:
    return Taken(*(now - then for now, then in zip(_now(), started, strict=True)))


CLASSES = len(Severity)


def main() -> None:
    """Print the rates, and the loop's as a share of (b) and as a multiple of (a)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="compact-resnet")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batches", type=int, default=60, help="of an epoch, and as many of (b)")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--redraw", type=float, default=0.5, help="share of scans with bands that are drawn anew")
    arguments = parser.parse_args()
    print(described(), f"; torch {torch.__version__} on {device()}, {torch.get_num_threads()} threads", sep="")
    config = FitConfig(encoder=arguments.encoder, width=arguments.width, redraw=arguments.redraw)
    size = 4 * config.blocks
    few, half = -(-arguments.batches // 8), -(-arguments.batches // 2)  # of the naive form, which is slow; of (b)
    loops = {f"the loop, {share:.0%} drawn anew": share for share in sorted({0.0, arguments.redraw})}
    turns: dict[str, list[Taken]] = {name: [] for name in (NAIVE, ALONE, *loops)}
    shares: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(arguments.turns + 1):
        data = _scans(arguments.batches * config.blocks)
        took = {NAIVE: _naive(config, data, few, size).each(few * size)}
        took[ALONE] = before = _alone(config, data, half, size).each(half * size)
        for name, redrawn_share in loops.items():
            its = config.model_copy(update={"redraw": redrawn_share})
            took[name] = _loop(its, data).each(arguments.batches * size)
            after = _alone(config, data, half, size).each(half * size)
            if turn:  # the first one warms up
                shares[name].append((before.seconds + after.seconds) / 2 / took[name].seconds)
            before = after
        for name in turns if turn else ():
            turns[name].append(took[name])
    rates, of_a_core = {}, {}
    for name, each in turns.items():
        rates[name] = 1 / statistics.median(one.seconds for one in each)
        of_a_core[name] = 1000 * statistics.median(one.of_a_core for one in each)
        told = " ".join(f"{1000 * one.seconds:.1f}" for one in each)
        print(f"{name:30} {rates[name]:8.1f} samples/s {of_a_core[name]:8.2f} ms of a core   (turns: {told} ms)")
    for name, ratios in shares.items():
        told = " ".join(f"{ratio:.3f}" for ratio in ratios)
        print(
            f"{name} / (b): {statistics.median(ratios):.3f} (turns: {told})   / (a): {rates[name] / rates[NAIVE]:.2f}"
        )
        if device().type == "cpu":
            alone_ms, loop_ms = of_a_core[ALONE], of_a_core[name]
            print(f"   of a core: {alone_ms / loop_ms:.3f} of (b), {loop_ms - alone_ms:.2f} ms a sample beside it")
    plain, reweighted = _losses(config, size)
    more, step = reweighted - plain, size / rates[ALONE]
    print(f"reweighting: {1e6 * more:.0f} µs a step, {more / step:.2%} of (b)")


def _scans(moderate: int) -> Inputs:
    """Synthetic inputs; as many of severity 1 as an epoch has blocks, and as many of 2; twice that of 0."""
    labels = np.repeat([0, 1, 2], [2 * moderate, moderate, moderate])
    z, y, x = np.ogrid[-1:1:40j, -1:1:144j, -1:1:144j]
    head = np.where(z**2 + y**2 + x**2 < 0.7, 1.0, 0.02).astype(np.float16)
    assert head.shape == INPUT_SHAPE
    scans = [Scan(Path(f"LISA_{i:04d}_LF_axi.nii.gz"), f"LISA_{i:04d}", Plane.AXIAL, (0,)) for i in range(len(labels))]
    columns = np.zeros((len(labels), len(Artifact)), np.int64)
    columns[:, list(Artifact).index(ARTIFACT)] = labels
    return Inputs(scans, [head] * len(labels), columns, np.zeros(len(labels), np.int64))


class _Ends(logging.Handler):
    """When each epoch of a fit ended."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[Taken] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith("epoch_done"):
            self.at.append(_now())


def _loop(config: FitConfig, data: Inputs) -> Taken:
    """A fit's one epoch, from where the members it began with are saved: its validation of one scan included."""
    log, ends = logging.getLogger("train.loop"), _Ends()
    log.addHandler(ends)
    log.setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as out:
        its = config.model_copy(update={"epochs": 1})
        fit_member(its, ARTIFACT, new_member(its), data, data.of([data.scans[0].subject]), Path(out))
    log.removeHandler(ends)
    before, after = ends.at
    return Taken(after.seconds - before.seconds, after.of_a_core - before.of_a_core)


def _alone(config: FitConfig, data: Inputs, batches: int, size: int) -> Taken:
    member, images = _member(config), on_device(np.stack(data.images[:size]).astype(np.float32))
    severity, plane = (torch.arange(size, device=device()) % CLASSES for _ in range(2))
    started = _now()
    for _ in range(batches):
        member.zero_grad()
        with autocast(config.bf16):
            output = member(images)
        _backward(F.cross_entropy(output.severity, severity) + F.cross_entropy(output.plane, plane))
    return _since(started)


def _losses(config: FitConfig, size: int, times: int = 2000) -> tuple[float, float]:
    """Seconds of one batch's severity loss and its way back to the features, without reweighting and with it.

    Processor time on a CPU, so that others on the machine do not count.
    """
    member = _member(config)
    features = torch.rand(size, member.severity.in_features, device=device(), requires_grad=True)
    target = torch.tensor([0, 0, 1, 2], device=device()).repeat(size // 4)
    clock = time.perf_counter if device().type == "cuda" else time.process_time
    taken: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(times):
        for is_reweighted in (False, True):
            started = clock()
            terms = cross_entropy(member.severity(features), target)
            _backward(reweighted_loss(features, terms, target) if is_reweighted else terms.mean())
            if turn >= times // 10:  # the first ones warm up
                taken[is_reweighted].append(clock() - started)
    return statistics.median(taken[False]), statistics.median(taken[True])


def _naive(config: FitConfig, data: Inputs, batches: int, size: int) -> Taken:
    """The paper's equations word for word: a batch is drawn, then each severity's loss goes backward by itself."""
    member, generator = _member(config), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(member.parameters(), config.learning_rate)
    head = list(member.severity.parameters())
    target = torch.tensor([0, 0, 1, 2], device=device()).repeat(size // 4)
    started = _now()
    for _ in range(batches):
        images = []
        for severity in target.tolist():
            image = np.asarray(data.images[0], np.float32)
            if generator.random() < config.redraw:
                image = redrawn(image, ARTIFACT, Severity(severity), generator)
            images.append(varied(image, frozenset({ARTIFACT}), config, generator))
        with autocast(config.bf16):
            output = member(on_device(np.stack(images)))
        losses = [F.cross_entropy(output.severity[target == c], target[target == c]) for c in range(CLASSES)]
        norms = []
        for loss in losses:
            optimizer.zero_grad()
            _backward(loss, retain_graph=True)
            norms.append(torch.cat([p.grad.flatten() for p in head if p.grad is not None]).norm())
        optimizer.zero_grad()
        smallest = min(norms)
        weighted = sum(smallest / norm * loss for norm, loss in zip(norms, losses, strict=True))
        total = weighted + F.cross_entropy(output.plane, torch.zeros_like(target))
        _backward(total)
        optimizer.step()
    return _since(started)


def _member(config: FitConfig) -> Member:
    return channels_last(new_member(config).to(device()).train())


def _backward(loss: Tensor, *, retain_graph: bool = False) -> None:
    loss.backward(retain_graph=retain_graph)  # type: ignore[no-untyped-call]
    if loss.is_cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
