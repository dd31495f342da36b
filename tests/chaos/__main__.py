"""Chaos on a real node: rounds of SIGKILL, and faults one by one; prints what was counted.

python tests/chaos --rounds 100 --seed 7               SIGKILL at random moments
python tests/chaos --scenarios                         every fault, once
python tests/chaos --scenarios full_disk clock_is_moved
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "acceptance"))

from destinations import Destination
from kills import QUICK, Chaos
from peers import nodes
from reckoning import Counts, transfers
from scenarios import SCENARIOS, Skipped


def main() -> int:
    """Exit code 0 when nothing was lost, changed, doubled or stuck."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=0, help="rounds of SIGKILL")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no round after this long")
    parser.add_argument("--scenarios", nargs="*", choices=[[], *SCENARIOS], metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--keep", action="store_true", help="keep the folder even when all is well")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qcnode-chaos-"))
    print(f"seed {arguments.seed}, everything in {folder}", flush=True)
    with (folder / "decisions.log").open("a", buffering=1) as log:
        started = time.monotonic()

        def note(line: str) -> None:
            with suppress(ValueError):  # a scanner that outlived its scenario, when the log is closed
                log.write(f"{time.monotonic() - started:8.2f} {line}\n")

        ok = True
        if arguments.rounds:
            ok = _rounds(arguments.rounds, arguments.minutes * 60, arguments.seed, folder, note)
        if arguments.scenarios is not None:
            ok &= _scenarios(arguments.scenarios or list(SCENARIOS), arguments.seed, folder, note)
    if ok and not arguments.keep:
        shutil.rmtree(folder)
    elif not ok:
        print(f"FAULTS FOUND; the decisions, the log and the state are in {folder}")
    return 0 if ok else 1


def _rounds(rounds: int, seconds: float, seed: int, folder: Path, note: Callable[[str], None]) -> bool:
    generator, total, started = random.Random(seed), Counts(), time.monotonic()
    destinations = [Destination("pacs"), Destination("console")]
    with ExitStack() as running:
        for destination in destinations:
            running.enter_context(destination.running())
        start = running.enter_context(nodes(folder))
        chaos = Chaos(start(QUICK + "".join(d.configuration for d in destinations)), destinations, note)
        done = 0
        while done < rounds and time.monotonic() - started < seconds:
            counts = chaos.round(generator)
            total, done = total + counts, done + 1
            print(f"round {done:3d}  {time.monotonic() - started:6.0f} s  {counts}", flush=True)
            if counts.faults:
                break
        total += transfers(destinations)
        tracebacks = chaos.node.log.count("Traceback")
    kills = ", ".join(f"{name} {count}" for name, count in sorted(chaos.kills.items()))
    print(f"{done} rounds in {time.monotonic() - started:.0f} s; killed: {kills}; tracebacks in the log: {tracebacks}")
    print(f"total: {total}\nfaults: {total.faults or 'none'}")
    return not total.faults


def _scenarios(names: list[str], seed: int, folder: Path, note: Callable[[str], None]) -> bool:
    ok = True
    for name in names:
        own, started = folder / name, time.monotonic()
        own.mkdir()
        note(f"scenario {name}")
        try:
            with nodes(own) as start:
                counts = SCENARIOS[name](start, random.Random(f"{seed} {name}"), note)
        except Skipped as why:
            print(f"{name:24s} skipped: {why}", flush=True)
            continue
        except AssertionError as error:
            counts, ok = Counts(), False
            print(f"{name:24s} FAILED: {error}", flush=True)
        ok &= not counts.faults
        print(f"{name:24s} {time.monotonic() - started:5.0f} s  {counts}", flush=True)
    return ok


if __name__ == "__main__":
    sys.exit(main())
