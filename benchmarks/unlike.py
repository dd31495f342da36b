"""How many volumes that are no head's scan are refused, and how many scans of heads?

python benchmarks/unlike.py [--corpus DIR] [--each 20] [--scans 400] [--seed 1] [--fit]

For each kind of unlike_volumes.py, of two generators, how many `check_assessable` refuses. Kinds that begin with a
head take clean ones of the corpus (LISA layout), the second generator those of test subjects; without a corpus,
synthetic ones.
Then how many of the corpus' own scans are refused, by the worst severity in each. --fit writes
qcnode/imaging/likeness.json instead, from all scans of training and validation subjects; from heads alone, never from
these generators.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from machine import described
from unlike_volumes import KINDS

sys.path.insert(0, str(Path(__file__).parents[1]))

from qcnode.artifacts import Plane
from qcnode.errors import NotAssessable
from qcnode.imaging import phantom
from qcnode.imaging.likeness import Known, as_vector, blocks, check_assessable, distance, figures
from qcnode.imaging.volume import Volume, volume_from_nifti
from train.config import PRESETS
from train.dataset import Scan, read_scans
from train.given import read_split
from train.split import TEST

FEWEST_SLICES = 12
KNOWN = Path(__file__).parents[1] / "qcnode" / "imaging" / "likeness.json"
FITTED, UNSEEN = "training and validation subjects", "test subjects"
TAIL_PERCENT, WIDER = 0.05, 0.05  # beyond a range; by which share of itself it is widened
WIDER_OF = {"brightest": 0.1}  # fat is brighter at 3 T than the scans of the ranges have it
SHRINKAGE = 0.05  # of the correlations towards none
FARTHEST_PERCENT, FARTHER = 99.8, 1.1  # of distances that are near enough; times this


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="labelled scans in the LISA layout")
    parser.add_argument("--each", type=int, default=20, help="volumes of each generator")
    parser.add_argument("--scans", type=int, default=400, help="of the corpus, at most, of each part")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    parts = _parts(arguments.corpus) if arguments.corpus else {}
    if arguments.fit:
        volumes = (volume_from_nifti(scan.path) for scan in parts[FITTED])
        KNOWN.write_text(fit([found for volume in volumes if (found := figures(blocks(volume)))]))
        return
    print(described())
    heads = {name: _clean(scans) for name, scans in parts.items()}
    for kind, makers in KINDS.items():
        for name, maker in zip((FITTED, UNSEEN), makers, strict=True):
            refused = 0
            for i in range(arguments.each):
                draw = np.random.default_rng([arguments.seed, i, zlib.crc32(maker.__name__.encode())])
                refused += _refused(maker(draw, _head(heads.get(name, []), i))) is not None
            print(f"{kind:9} {maker.__name__:25} {refused:4} of {arguments.each}", flush=True)
    for name, scans in parts.items():
        _brains(name, scans[: arguments.scans])


def _parts(corpus: Path) -> dict[str, list[Scan]]:
    """The corpus' scans by whether the ranges were chosen on their subject, in an order that favours none."""
    scans = sorted(read_scans(corpus), key=lambda scan: zlib.crc32(scan.path.name.encode()))
    part_of = read_split(PRESETS / "shipped-split")
    return {
        name: [scan for scan in scans if (part_of.get(scan.subject) == TEST) == test]
        for name, test in ((FITTED, False), (UNSEEN, True))
    }


def _clean(scans: list[Scan]) -> list[Scan]:
    return [scan for scan in scans if not any(scan.labels)][:24]


def _head(scans: list[Scan], number: int) -> Volume:
    if scans:
        return volume_from_nifti(scans[number % len(scans)].path)
    return phantom.head(np.random.default_rng(number % 6), tuple(Plane)[number % 3])


def _refused(volume: Volume) -> str | None:
    try:
        check_assessable(volume, FEWEST_SLICES)
    except NotAssessable as error:
        return str(error)
    return None


def _brains(name: str, scans: list[Scan]) -> None:
    """Refusals among real or simulated scans, by the worst severity of any artifact."""
    seen, refused = Counter[int](), Counter[int]()
    for scan in scans:
        worst = max(scan.labels)
        seen[worst] += 1
        if why := _refused(volume_from_nifti(scan.path)):
            refused[worst] += 1
            print(f"  refused {scan.path.name}: {why}", flush=True)
    for worst in sorted(seen):
        print(f"scans, {name}, worst severity {worst}: {refused[worst]} of {seen[worst]}")


def fit(found: list[dict[str, float]]) -> str:
    """likeness.json of these scans' figures."""
    vectors = np.array([as_vector(one) for one in found])
    low, high = np.percentile(vectors, [TAIL_PERCENT, 100 - TAIL_PERCENT], axis=0)
    margin = (high - low) * [WIDER_OF.get(name, WIDER) for name in found[0]]
    centre, scale = np.median(vectors, axis=0), vectors.std(axis=0)
    correlation = np.cov(((vectors - centre) / scale).T)
    shrunk = (1 - SHRINKAGE) * correlation + SHRINKAGE * np.eye(len(centre))
    known = Known(low - margin, high + margin, centre, np.linalg.inv(shrunk) / np.outer(scale, scale), 0.0)
    farthest = FARTHER * float(np.percentile([distance(vector, known) for vector in vectors], FARTHEST_PERCENT))
    held: dict[str, object] = {"scans": len(found), "figures": list(found[0]), "farthest": round(farthest, 3)}
    for name, array in zip(Known._fields[:-1], known[:-1], strict=True):
        held[name] = json.loads(json.dumps(array.tolist()), parse_float=lambda text: float(f"{float(text):.6g}"))
    return "{\n" + ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in held.items()) + "\n}\n"


if __name__ == "__main__":
    main()
