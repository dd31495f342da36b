"""How fast does every encoder learn at 128³, and in how much memory: in bf16 and in fp32?

python benchmarks/encoders.py [--batch 4] [--steps 10] [--encoder NAME …]

Forward, backward and Adam's step of a member on scans drawn by chance; on CUDA where there is a GPU, else on the CPU.
Every encoder in a process of its own, so that the memory is its own: CUDA's largest allocation, or on the CPU the
process's largest resident size. Median of the steps, after one that warms up. Encoders that look at a scan of the
project's own grid, once and for all, are left out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from machine import described
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from qcnode.artifacts import Severity
from qcnode.ensemble.model import Member, channels_last
from qcnode.ensemble.networks import ENCODERS, own_width
from qcnode.imaging.preprocess import CUBE, INPUT_SHAPES
from train.sampling.feed import device
from train.sampling.looks import looks


class Learned(NamedTuple):
    """parameters: of the member. memory: in bytes."""

    parameters: int
    seconds: float
    memory: int


def main() -> None:
    """Print the table; an encoder that does not fit into memory gets a line that says so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--encoder", action="append", help="this one, perhaps with +dft; may be given again")
    arguments = parser.parse_args()
    where = torch.cuda.get_device_name() if device().type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{described()}; torch {torch.__version__} on {device()}, {where}; batches of {arguments.batch}")
    print(f"{'at 128³':20} {'parameters':>12}   {'bf16':>9} {'memory':>9}   {'fp32':>9} {'memory':>9}")
    context = multiprocessing.get_context("spawn")
    for name in arguments.encoder or [name for name in ENCODERS if not looks(name)]:
        told, parameters = [], ""
        for bf16 in (True, False):
            with ProcessPoolExecutor(1, context) as alone:
                try:
                    its = alone.submit(learned, name, arguments.batch, arguments.steps, bf16).result()
                except (RuntimeError, MemoryError) as error:
                    told.append(f"{type(error).__name__:>19}")
                    continue
            told.append(f"{arguments.batch / its.seconds:7.2f}/s {its.memory / 1024**3:5.1f} GiB")
            parameters = f"{its.parameters / 1e6:10.1f} M"
        print(f"{name:20} {parameters:>12}   {'   '.join(told)}", flush=True)


def learned(name: str, batch: int, steps: int, bf16: bool) -> Learned:
    """What so many steps of a new member take: the median of one, and the memory of the hungriest."""
    member = channels_last(Member(name, own_width(name)).train()).to(device())
    optimizer = torch.optim.AdamW(member.parameters(), fused=True)
    shape = (batch, 1, *INPUT_SHAPES[CUBE])
    images = torch.rand(shape, device=device()).contiguous(memory_format=torch.channels_last_3d)
    severity = torch.arange(batch, device=device()) % len(Severity)
    taken = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device().type, torch.bfloat16, enabled=bf16):
            output = member(images)
        loss = F.cross_entropy(output.severity, severity) + F.cross_entropy(output.plane, severity)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()  # waits for the GPU
        taken.append(time.perf_counter() - started)
    if device().type == "cuda":
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    parameters = sum(each.numel() for each in member.parameters())
    return Learned(parameters, statistics.median(taken[1:]), memory)


if __name__ == "__main__":
    main()
