"""How long do seven grades of one scan take: the shipped ensemble, and the paper's full-size encoders beside it?

python benchmarks/inference.py [--threads 2] [--turns 7] [--paper-turns 1] [--weights DIR]

One axial scan of 120 × 146 × 36 voxels. The shipped ensemble by itself and with the making of its network input; then
the encoders of BRIQA (arXiv 2510.26661) at 128³ with weights drawn by chance, which take as long as trained ones: each
is timed by itself, and the ensemble's time is their sum, its members running one after the other. On the CPU, and on
CUDA where there is a GPU. Medians. Beside the clock stands the processor time of all threads: on a machine that others
use it tells more.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from machine import described

sys.path.insert(0, str(Path(__file__).parents[1]))

from qcnode.artifacts import Plane
from qcnode.ensemble.model import Member, channels_last
from qcnode.ensemble.networks import own_width
from qcnode.ensemble.runtime import Ensemble
from qcnode.imaging import phantom
from qcnode.imaging.preprocess import CUBE, INPUT_SHAPES, network_input
from qcnode.imaging.volume import Volume

# Noise, Zipper, Positioning; Banding, Motion, Contrast; Distortion: train/presets/briqa.toml
PAPER = {"densenet169": 3, "resnet18": 3, "mednext_s": 1}


class Seconds(NamedTuple):
    """Medians of one call's time by the clock, and of the processor's."""

    clock: float
    processor: float

    def __str__(self) -> str:
        return f"{1000 * self.clock:10.1f} {1000 * self.processor:10.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--paper-turns", type=int, default=1)
    parser.add_argument("--weights", type=Path, help="a weights folder; the shipped one by default")
    arguments = parser.parse_args()
    print(f"{described()}; torch {torch.__version__}, {arguments.threads} threads")
    torch.set_num_threads(arguments.threads)
    volume = phantom.head(np.random.default_rng(1), Plane.AXIAL)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    print(f"milliseconds, median{'':24} clock  processor")
    print(f"{'network input':32} {_timed(lambda: network_input(volume), arguments.turns)}")
    for device in devices:
        ensemble = Ensemble.load(arguments.weights, device, arguments.threads)
        for what, seconds in _shipped(ensemble, volume, arguments.turns).items():
            print(f"{f'{what}, {device}':32} {seconds}", flush=True)
    for device in devices:
        total = Seconds(0, 0)
        for name, count in PAPER.items():
            one = _timed(_member(name, device), arguments.paper_turns)
            total = Seconds(total.clock + count * one.clock, total.processor + count * one.processor)
            print(f"{f'{count} × {name} at 128³, {device}':32} {one}  each", flush=True)
        print(f"{f'paper, seven networks, {device}':32} {total}")


def _shipped(ensemble: Ensemble, volume: Volume, turns: int) -> dict[str, Seconds]:
    made = network_input(volume, ensemble.preprocessing)
    return {
        "shipped, seven networks": _timed(lambda: ensemble.grade(made), turns),
        "shipped with input": _timed(lambda: ensemble.grade(network_input(volume, ensemble.preprocessing)), turns),
    }


def _member(name: str, device: str) -> Callable[[], object]:
    """A call that has a full-size member look at one scan."""
    member = channels_last(Member(name, own_width(name)).eval()).to(device)
    images = torch.rand(1, 1, *INPUT_SHAPES[CUBE], device=device).contiguous(memory_format=torch.channels_last_3d)

    def look() -> None:
        with torch.inference_mode():
            member(images).severity.cpu()  # waits for the GPU

    return look


def _timed(call: Callable[[], object], turns: int) -> Seconds:
    """Medians over so many turns, after one that warms up."""
    call()
    clock, processor = [], []
    for _ in range(turns):
        began, used = time.perf_counter(), time.process_time()
        call()
        clock.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    return Seconds(statistics.median(clock), statistics.median(processor))


if __name__ == "__main__":
    main()
