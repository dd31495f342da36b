"""Fuzz: damaged associations to a running node, damaged files to all that reads them; prints what was counted.

python tests/fuzz --cases 100000 --seed 1
python tests/fuzz --cases 2000 --only volume score --real ../shared/data/dicom

A case is its target, the seed and its number: `--only TARGET --first NUMBER --cases 1` runs one again.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("", "chaos", "acceptance")]

import instances
import pdus
import targets
from peers import nodes

# From the cheapest to the dearest; a case of the last two costs a hundred of the first.
SHARES = {"facts": 0.7, "eligible": 0.2, "volume": 0.05, "pdus": 0.03, "score": 0.015, "reports": 0.005}
HANG_SECONDS = 1.0  # of processor time
KILL_SECONDS = 20  # of processor time: what hangs for good
GROWTH_MIB = 256  # that one case may add to the largest size that the process ever had
CONFIGURATION = "[completeness]\nquiet_seconds = 5\n[assessing]\nthreads = 1\n"


def main() -> int:
    """Exit code 0 when every case ended in a result or in one of qcnode's errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--only", nargs="*", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each target")
    parser.add_argument("--real", type=Path, help="a folder of real DICOM files to start from as well")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    whole = sum(SHARES[name] for name in arguments.only)
    run, bad, started = 0, 0, time.monotonic()
    for name in arguments.only:
        count = max(1, round(arguments.cases * SHARES[name] / whole))
        numbers = range(arguments.first, arguments.first + count)
        faults = _pdus(numbers, arguments.seed) if name == "pdus" else _files(name, numbers, arguments)
        run, bad = run + count, bad + faults
    print(f"{run} cases in {time.monotonic() - started:.0f} s, {bad} with a fault")
    return 1 if bad else 0


def _generator(seed: int, name: str, number: int) -> random.Random:
    return random.Random(f"{seed} {name} {number}")


def _files(name: str, numbers: range, arguments: argparse.Namespace) -> int:
    """Run the cases in a child; where one ends it, count that and go on behind it."""
    instances.series()
    if arguments.real:
        instances.real_series(arguments.real)
    counters = mmap.mmap(-1, 64)
    started, faults, first = time.monotonic(), 0, numbers.start
    _put(counters, 0, 0)
    while first < numbers.stop:
        _put(counters, 1, first)
        child = os.fork()
        if child == 0:
            _work(name, range(first, numbers.stop), arguments, counters)
        status = os.waitpid(child, 0)[1]
        first = _get(counters, 1) + 1
        if status:
            faults += 1
            print(f"FAULT {name} {first - 1}: the process ended with {_ended(status)}", flush=True)
    faults += _get(counters, 2)
    seconds, largest = time.monotonic() - started, _get(counters, 3)
    print(
        f"{name:9s} {len(numbers):7d} cases {seconds:6.0f} s  results={_get(counters, 0)} faults={faults} "
        f"longest={_get(counters, 4) / 1000:.2f} s (processor) largest={largest} MiB",
        flush=True,
    )
    return faults


def _work(name: str, numbers: range, arguments: argparse.Namespace, counters: mmap.mmap) -> None:
    """The child: never returns. The libraries' own lines on stderr are of no use, and many."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            _put(counters, 1, number)
            case = instances.damaged(_generator(arguments.seed, name, number), arguments.real)
            before, size = time.process_time(), _peak_mib()
            signal.setitimer(signal.ITIMER_PROF, KILL_SECONDS)
            fault = _fault(lambda case=case: targets.run(name, case, Path(folder)), counters)
            seconds = time.process_time() - before
            if fault is None and seconds > HANG_SECONDS:
                fault = f"{seconds:.1f} s of processor time"
            if fault is None and _peak_mib() - size > GROWTH_MIB:
                fault = f"{_peak_mib() - size} MiB more memory"
            _put(counters, 3, _peak_mib())
            _put(counters, 4, max(_get(counters, 4), round(1000 * seconds)))
            if fault is not None:
                _put(counters, 2, _get(counters, 2) + 1)
                print(f"FAULT {name} {number}: {fault}", flush=True)
    os._exit(0)


def _fault(case: Callable[[], bool], counters: mmap.mmap) -> str | None:
    try:
        if case():
            _put(counters, 0, _get(counters, 0) + 1)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a decoder's panic is no Exception
        places = traceback.extract_tb(error.__traceback__)
        ours = [place for place in places if "qcnode" in place.filename or "fuzz" in place.filename]
        where = " ".join(f"{Path(place.filename).name}:{place.lineno}" for place in (*ours[-2:], places[-1]))
        return f"{type(error).__name__} {str(error)[:80]!r} at {where}"
    return None


def _pdus(numbers: range, seed: int) -> int:
    """Play the damaged associations to a node in a process of its own, one after the other."""
    pdus.streams()
    faults, slow, started = 0, 0, time.monotonic()
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, nodes(Path(folder)) as start:
        node = start(CONFIGURATION)
        assert node.process is not None
        status = Path(f"/proc/{node.process.pid}/status")
        began = _resident_mib(status)
        for number in numbers:
            try:
                answered = pdus.played(node.port, pdus.damaged(_generator(seed, "pdus", number)))
            except OSError as error:
                faults += 1
                print(f"FAULT pdus {number}: {type(error).__name__} {error}", flush=True)
                if node.process.poll() is not None:
                    break
                continue
            slow += answered.seconds > pdus.SLOW_SECONDS
            ends[" ".join(map(str, sorted(set(answered.types)))) or "closed"] += 1
        pdus.played(node.port, pdus.streams()[0])
        threads = node.log.count("Exception in thread")
        grown = _resident_mib(status) - began
    print(
        f"pdus      {len(numbers):7d} cases {time.monotonic() - started:6.0f} s  faults={faults} slow={slow} "
        f"dead threads={threads} memory={began} MiB {grown:+d} MiB; PDU types answered: {dict(ends.most_common(8))}",
        flush=True,
    )
    return faults + threads


def _ended(status: int) -> str:
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit code {status >> 8}"


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _resident_mib(status: Path) -> int:
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) // 1024


def _put(counters: mmap.mmap, place: int, value: int) -> None:
    counters[8 * place : 8 * place + 8] = value.to_bytes(8, "little")


def _get(counters: mmap.mmap, place: int) -> int:
    return int.from_bytes(counters[8 * place : 8 * place + 8], "little")


if __name__ == "__main__":
    sys.exit(main())
