"""How do the shipped members grade scans of a simulator that they did not learn from?

python benchmarks/another.py BRAINS [--scans 24] [--blur 0] [--cache DIR] [--weights DIR]

BRAINS: a folder with labelmaps/, t1_skullstripped/, children_skullstripped/ and children_templates/ in NIfTI, of which
only SUBJECTS are used. The physics here are written from the definition of the severities alone and share no code with
`train` or the phantom; each severity is measured on the finished scan, and a scan outside its interval is drawn again.
Of every artifact --scans scans of either severity, twice as many clean ones, and half as many with two artifacts;
--blur softens the anatomy by so many mm before anything is done to it. Scans and grades are kept in --cache. Prints for
each artifact its confusion matrix and macro F1 over the clean scans and its own, what the other artifacts' grades rise
by, and the grades for each way in which the scans were made.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from another_artifacts import OutsideIntervalError, bands, between, draw_pose, moved, shading, tone, warp
from another_heads import Array, Head, Pose, Rng, draw_grid, read_head, tissue, upright
from numpy.typing import NDArray
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1]))

from qcnode.artifacts import Artifact, Plane
from qcnode.ensemble.runtime import Ensemble
from qcnode.imaging.preprocess import network_input
from qcnode.imaging.volume import Volume

SUBJECTS = {
    "adult head": [f"labelmaps/training_seg_{n:02}.nii.gz" for n in (1, 2, 8, 12, 19, 20)],
    "stripped adult": [
        f"t1_skullstripped/sub-{n:02}_T1w.nii.gz" for n in (3, 9, 11, 14, 17, 22, 35, 41, 49, 59, 65, 67)
    ],
    "child": [
        *(f"children_skullstripped/sub-{n}_T1w.nii.gz" for n in ("0001_ses-V01", "0001_ses-V02", "0004_ses-V01")),
        *(f"children_templates/Template-Month{n}-{c}w.nii.gz" for n in (0, 3, 12) for c in ("T1", "T2")),
    ],
}
REFERENCE = "t1_skullstripped/sub-14_T1w.nii.gz"  # the middle one in its nod
N, Z, P, B, M, C, D = Artifact
FORBIDDEN = [{N: 2, Z: 1}, {N: 2, M: 1}]


def scan(head: Head, labels: Mapping[Artifact, int], rng: Rng, blur_mm: float = 0.0) -> tuple[Volume, dict[str, Any]]:
    """A scan with these severities, and how each came about; raises OutsideIntervalError."""
    plane = tuple(Plane)[rng.integers(3)]
    weighting = "T2" if rng.random() < 0.75 else "T1"
    scale = rng.uniform(0.82, 1.0) if head.kind == "adult head" else rng.uniform(0.95, 1.05)
    grid = draw_grid(head, plane, scale, rng.uniform(10, 25), rng)
    info: dict[str, Any] = {"subject": head.name, "kind": head.kind, "plane": plane.value, "weighting": weighting}
    lying, info[P] = draw_pose(labels.get(P, 0), head, grid, scale, rng)
    field = None
    if labels.get(D):
        field, info[D] = warp(labels[D], lying, head, grid, scale, rng)

    def view(part: Array, pose: Pose = lying, every: int = 1) -> Array:
        return pose.sample(part, head, grid, scale, field, every)

    brain = view(head.brain) > 0.5
    ways = ["grey and white", "all tissue", "ramp", "coil at one side", "middle"]
    severity, way = labels.get(C, 0), str(rng.choice(ways))
    flat = severity > 0 and way in ways[:2]
    seed = int(rng.integers(2**31))
    signal = ndimage.gaussian_filter(tissue(head, weighting, np.random.default_rng(seed)), blur_mm * head.per_mm)
    plain = view(signal)
    coil = shading(1.05, 1.28, str(rng.choice(ways[2:])), grid, brain, rng)
    mean = float((plain * coil)[brain].mean())
    if flat:
        left = rng.uniform(0.5, 0.65) if severity == 1 else rng.uniform(0.15, 0.35)
        signal = tissue(head, weighting, np.random.default_rng(seed), left, way)
        signal = ndimage.gaussian_filter(signal, blur_mm * head.per_mm)
        g, w, image = view(head.grey, lying, 4) > 0.8, view(head.white, lying, 4) > 0.8, view(signal, lying, 4)
        before = plain[2::4]
        kept = (image[g].mean() - image[w].mean()) / (before[g].mean() - before[w].mean())
        info[C] = {"way": way, "left": between(kept, *((0.5, 0.65) if severity == 1 else (0.15, 0.35)), "contrast")}
        plain = view(signal)
    elif severity:
        lowest, highest = (1.9, 2.5) if severity == 1 else (3.5, 6.0)
        coil = shading(lowest, highest, way, grid, brain, rng)
        info[C] = {"way": way}
    ratio = float(coil[brain].max() / coil[brain].min())
    if severity == 0 or flat:
        between(ratio, 1, 1.4, "shading")
    else:
        info[C]["ratio"] = between(ratio, *((1.9, 2.5) if severity == 1 else (3.5, 6.0)), "shading")
    complete: NDArray[np.complex128] = (plain * coil).astype(complex)
    if labels.get(M):

        def seen(pose: Pose, every: int) -> Array:
            return view(signal, pose, every) * coil[every // 2 :: every]

        complete, info[M] = moved(labels[M], plain * coil, lying, seen, brain, rng)
    sigma = {0: rng.uniform(0.01, 0.03), 1: rng.uniform(0.092, 0.128), 2: rng.uniform(0.185, 0.295)}[labels.get(N, 0)]
    noise = rng.standard_normal(complete.shape) + 1j * rng.standard_normal(complete.shape)
    smooth = float(rng.choice([0.0, 0.4, 0.6]))
    noise = ndimage.gaussian_filter(noise, (0, smooth, smooth))
    noise /= noise.real.std()
    info[N] = {"way": f"smoothed by {smooth}", "sigma": sigma}
    complete = complete + sigma * mean * noise
    if labels.get(Z):
        quiet = np.square(np.abs(complete)) / mean**2
        lines, info[Z] = tone(labels[Z], complete.shape, rng)
        complete = complete + mean * lines
        added = np.square(np.abs(complete)) / mean**2 - quiet
        along = added[slice(*info[Z]["slices"])].mean((0, 1 if info[Z]["across"] == "columns" else 2))
        low, high = (0.15, 0.30) if labels[Z] == 1 else (0.30 if info[Z]["lines"] == "3-6" else 0.60, 1.2)
        info[Z]["amplitude"] = [between(float(np.sqrt(max(0, along[i]))), low, high, "line") for i in info[Z]["at"]]
    array = np.abs(complete).astype(np.float32)
    if labels.get(B):
        factor, info[B] = bands(labels[B], array.shape, brain, rng)
        array = array * factor
    affine = np.eye(4)
    affine[:3, :3] = grid.steps
    affine[:3, 3] = -grid.steps @ ((np.array(grid.shape) - 1) / 2)
    return Volume((array * rng.uniform(50, 2000)).astype(np.float32), affine), info


def plan(count: int) -> list[dict[Artifact, int]]:
    """The labels of each scan, in an order of which any beginning is balanced."""
    single = [{artifact: severity} for artifact in Artifact for severity in (1, 2)]
    every = [*single, {}, {}]
    pairs = [{a: s, b: t} for a, b in itertools.combinations(Artifact, 2) for s in (1, 2) for t in (1, 2)]
    pairs = [pair for pair in pairs if pair not in FORBIDDEN]
    chosen = np.random.default_rng(9).permutation(len(pairs))[: 7 * count // 2]
    return every * count + [pairs[i] for i in chosen]


def made(brains: Path, cache: Path, count: int, blur_mm: float, ensemble: Ensemble) -> Iterable[dict[str, Any]]:
    """Each scan's labels, ways and grades, from the cache where they are there."""
    files = {kind: [brains / name for name in names] for kind, names in SUBJECTS.items()}
    heads: dict[Path, Head] = {}
    like = upright(read_head(brains / REFERENCE, "stripped adult"), None)
    for number, labels in enumerate(plan(count)):
        path = cache / f"{number:04}.npz"
        said = cache / f"{number:04}.json"
        if said.exists():
            yield json.loads(said.read_text())
            continue
        for turn in itertools.count():
            rng = np.random.default_rng([number, turn])
            kind = str(rng.choice(list(files), p=(0.6, 0.25, 0.15)))
            file = files[kind][rng.integers(len(files[kind]))]
            if file not in heads:
                heads[file] = upright(read_head(file, kind), like)
            try:
                volume, info = scan(heads[file], labels, rng, blur_mm)
                break
            except OutsideIntervalError as reason:
                print(number, {k.value: v for k, v in labels.items()}, reason, file=sys.stderr)
        np.savez(path, array=volume.array.astype(np.float16), affine=volume.affine)
        grades = ensemble.grade(network_input(volume))
        row = {"number": number, "labels": {a.value: labels.get(a, 0) for a in Artifact}, "turns": turn,
               "info": {str(k): v for k, v in info.items()},
               "grades": {a.value: int(g.severity) for a, g in grades.items()},
               "probabilities": {a.value: g.probabilities for a, g in grades.items()}}  # fmt: skip
        said.write_text(json.dumps(row, default=float))
        yield json.loads(said.read_text())


def report(rows: list[dict[str, Any]]) -> None:
    """Print the tables."""
    single = [row for row in rows if sum(map(bool, row["labels"].values())) <= 1]
    clean = [row for row in single if not any(row["labels"].values())]
    print(f"{len(rows)} scans, {len(clean)} clean")
    for a in [a.value for a in Artifact]:
        own = clean + [row for row in single if row["labels"][a]]
        table = np.zeros((3, 3), int)
        for row in own:
            table[row["labels"][a], row["grades"][a]] += 1
        f1 = [2 * table[k, k] / max(1, table[k].sum() + table[:, k].sum()) for k in range(3)]
        print(f"\n{a}: macro F1 {np.mean(f1):.2f}, " + " | ".join(map(str, table.tolist())))
        ways = defaultdict(list)
        for row in (row for row in single if row["labels"][a]):
            shown = {**{k: v for k, v in row["info"].items() if isinstance(v, str)}, **row["info"].get(a, {})}
            for key, value in shown.items():
                if isinstance(value, str) and key != "subject":
                    ways[key, value, row["labels"][a]].append(row["grades"][a])
        for (key, value, severity), got in sorted(ways.items()):
            print(f"  {key:10} {value:22} of {severity}: {[got.count(k) for k in range(3)]}")
    print("\nrise of the expected severity over clean scans' (rows: what is there; columns: what is graded)")

    def expected(rows: list[dict[str, Any]], a: str) -> float:
        return float(np.mean([row["probabilities"][a][1] + 2 * row["probabilities"][a][2] for row in rows]))

    names = [a.value for a in Artifact]
    print(" " * 14 + "".join(f"{a[:8]:>9}" for a in names))
    for there in names:
        for severity in (1, 2):
            some = [row for row in single if row["labels"][there] == severity]
            if some:
                print(
                    f"{there:12}{severity:2}" + "".join(f"{expected(some, a) - expected(clean, a):9.2f}" for a in names)
                )
    print(
        "clean, called 1 or 2: "
        + ", ".join(f"{a} {sum(r['grades'][a] > 0 for r in clean)}/{len(clean)}" for a in names)
    )
    both = [row for row in rows if sum(map(bool, row["labels"].values())) == 2]
    for a in names:
        some = [row for row in both if row["labels"][a]]
        if some:
            print(f"of two, {a}: {sum(r['grades'][a] == r['labels'][a] for r in some)}/{len(some)} right")


def main() -> None:
    """Make, grade, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brains", type=Path)
    parser.add_argument("--scans", type=int, default=24)
    parser.add_argument("--cache", type=Path, default=Path("another"))
    parser.add_argument("--blur", type=float, default=0.0, help="standard deviation in mm")
    parser.add_argument("--weights", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    ensemble = Ensemble.load(arguments.weights, "cpu", 1)
    report(list(made(arguments.brains, arguments.cache, arguments.scans, arguments.blur, ensemble)))


if __name__ == "__main__":
    main()
