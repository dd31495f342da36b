"""Does the node grow? Four senders for a long time; memory and open files of the node and its children, sampled.

python benchmarks/soak.py [--minutes 60] [--plot docs/soak.svg]

Prints a line a minute, the trend over the second half (a line fitted by least squares), and draws both as an SVG.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "acceptance"))
sys.path.append(str(Path(__file__).parents[1] / "tests" / "chaos"))

import numpy as np
from destinations import Destination
from kills import QUICK, descendants
from machine import described
from peers import nodes
from reckoning import kept
from scanners import SCANNERS, Scanner, Shipment, shipment

SAMPLE_SECONDS = 5.0
MOST_WAITING = 12  # series without a report: no scanner sends faster than it scans
WIDTH, HEIGHT, MARGIN = 720, 220, 56


@dataclass(frozen=True)
class Sample:
    """One look at the node."""

    minutes: float
    node_mib: float
    children_mib: float
    files: int


def main() -> None:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    print(described())
    generator, pacs, samples = random.Random(arguments.seed), Destination("pacs"), list[Sample]()
    sent: list[Shipment] = []
    with tempfile.TemporaryDirectory(prefix="qcnode-soak-") as folder, pacs.running(), nodes(Path(folder)) as start:
        node = start(QUICK + pacs.configuration)
        assert node.process is not None
        began = time.monotonic()
        said, scanners = 0, list[Scanner]()
        while (minutes := (time.monotonic() - began) / 60) < arguments.minutes:
            scanners = [scanner for scanner in scanners if scanner.is_alive()]
            reported = len({report.series_uid for report in pacs.reports.copy()})  # its threads add to them
            while len(scanners) < SCANNERS and len(sent) - reported < MOST_WAITING:
                sent.append(shipment(generator))
                name = f"SCANNER{len(sent) % 100}"
                scanners.append(Scanner(name, node.port, sent[-1:], random.Random(generator.getrandbits(64))))
                scanners[-1].start()
            if not samples or 60 * (minutes - samples[-1].minutes) >= SAMPLE_SECONDS:
                samples.append(_sample(minutes, node.process.pid))
            if minutes >= said:
                print(f"{minutes:6.1f} min  {samples[-1]}  series={len(sent)}  reports={len(pacs.reports)}", flush=True)
                said += 1
            time.sleep(0.1)
        for scanner in scanners:
            scanner.join(60)
        counts = kept(node, sent)
    half = [sample for sample in samples if sample.minutes > arguments.minutes / 2]
    for name in ("node_mib", "children_mib", "files"):
        values = np.array([getattr(sample, name) for sample in half])
        slope = np.polyfit([sample.minutes for sample in half], values, 1)[0]
        print(f"{name}: {values.min():.0f} to {values.max():.0f} in the second half, trend {60 * slope:+.1f} an hour")
    totals = f"acknowledged={counts.acknowledged} lost={counts.lost} changed={counts.changed}"
    print(f"series={len(sent)} reports={len(pacs.reports)} instances: {totals}")
    if arguments.plot:
        arguments.plot.write_text(_svg(samples))


def _sample(minutes: float, pid: int) -> Sample:
    everyone = [pid, *descendants(pid)]
    memory = [_resident_mib(one) for one in everyone]
    files = 0
    for one in everyone:
        with suppress(OSError):  # it ended since we looked
            files += len(list(Path(f"/proc/{one}/fd").iterdir()))
    return Sample(round(minutes, 2), round(memory[0], 1), round(sum(memory[1:]), 1), files)


def _resident_mib(pid: int) -> float:
    """Resident size, shared pages counted for each of the processes."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    return 0.0


def _svg(samples: list[Sample]) -> str:
    """Two panels, memory above and open files below, each from zero."""
    series = (
        (0, "memory of the node, MiB", "#0072b2", [sample.node_mib for sample in samples]),
        (0, "of its children, MiB", "#d55e00", [sample.children_mib for sample in samples]),
        (1, "open files", "#009e73", [float(sample.files) for sample in samples]),
    )
    minutes = [sample.minutes for sample in samples]
    body = []
    for panel in (0, 1):
        mine = [one for one in series if one[0] == panel]
        top = max(max(values) for *_, values in mine) * 1.1
        bottom = (panel + 1) * HEIGHT - MARGIN / 2
        height = HEIGHT - MARGIN
        body.append(f'<line x1="{MARGIN}" y1="{bottom}" x2="{WIDTH}" y2="{bottom}" stroke="#888"/>')
        body.append(f'<text x="{MARGIN - 6}" y="{bottom - height + 4}" text-anchor="end">{top / 1.1:.0f}</text>')
        body.append(f'<text x="{MARGIN - 6}" y="{bottom}" text-anchor="end">0</text>')
        for number, (_, title, colour, values) in enumerate(mine):
            points = " ".join(
                f"{MARGIN + (WIDTH - MARGIN) * at / max(minutes[-1], 0.1):.1f},{bottom - height * value / top:.1f}"
                for at, value in zip(minutes, values, strict=True)
            )
            body.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            place = f'x="{MARGIN + 10 + 220 * number}" y="{bottom - height - 8}"'
            body.append(f'<text {place} fill="{colour}">{title}</text>')
        body.append(f'<text x="{WIDTH}" y="{bottom + 16}" text-anchor="end">{minutes[-1]:.0f} minutes</text>')
    size = f'viewBox="0 0 {WIDTH + 10} {2 * HEIGHT + 10}" width="{WIDTH + 10}" height="{2 * HEIGHT + 10}"'
    style = "<style>text{font:12px sans-serif}</style><rect width='100%' height='100%' fill='white'/>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{"".join(body)}</svg>\n'


if __name__ == "__main__":
    main()
