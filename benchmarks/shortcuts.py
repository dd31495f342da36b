"""Do grades hold when what must not matter changes, and does an artifact's grade rise when another one is added?

python benchmarks/shortcuts.py CORPUS BRAINS [--weights DIR] [--scans 240] [--heads 24] [--seed 1]

All scans are of test subjects, which the weights did not learn from (train/presets/shipped-split). First, of the
corpus' scans, how a site would fare that rescans on the verdict: how many without an artifact it would call back, how
many severe ones it would find. Then macro F1 of scans whose background is set to zero or whose intensities are on
another scale; of scans simulated again with the same artifacts and another skull, or a newborn's size. Then, of clean
heads with one severe artifact added, by how much the probability of every other artifact rises. Tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import described
from numpy.typing import NDArray
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1]))

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.runtime import Ensemble
from qcnode.imaging.preprocess import network_input
from qcnode.imaging.volume import Volume, volume_from_nifti
from qcnode.verdict import Decision, Grade, verdict
from train import metrics
from train.config import PRESETS
from train.dataset import Scan, read_scans, subject_name
from train.given import read_split
from train.progress import progress
from train.simulate import ADULT_LENGTH_MM, PHANTOMS, choose
from train.simulation.acquire import apply
from train.simulation.brains import Source, anatomy, phantoms, sources
from train.simulation.contrasts import WEIGHTING_SHARES, WEIGHTINGS, head
from train.simulation.draws import Draw, draw, draw_levels
from train.simulation.scans import clean_scan
from train.simulation.severity import OutOfContract
from train.split import TEST

ADULT, NEWBORN = 1.0, 0.65  # of an adult's brain from front to back
_ATTEMPTS = 40

Grades = dict[Artifact, Grade]


@dataclass(frozen=True)
class Graded:
    """What was said of some scans, beside the truth (scan, artifact)."""

    truth: NDArray[np.int64]
    said: list[Grades]

    def macro_f1(self) -> dict[Artifact, float]:
        """By artifact."""
        named = {artifact: np.array([int(grades[artifact].severity) for grades in self.said]) for artifact in Artifact}
        return {a: metrics.macro_f1(self.truth[:, i], named[a]) for i, a in enumerate(Artifact)}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="labelled scans in the LISA layout")
    parser.add_argument("brains", type=Path, help="the brains that it was simulated from")
    parser.add_argument("--weights", type=Path, help="default: the shipped ones")
    parser.add_argument("--scans", type=int, default=240, help="of each comparison")
    parser.add_argument("--heads", type=int, default=24, help="to add artifacts to")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ensemble = Ensemble.load(arguments.weights)
    scans = read_scans(arguments.corpus)
    part_of = read_split(PRESETS / "shipped-split")
    of_test = {subject for subject, part in part_of.items() if part == TEST}
    unseen = sorted((s for s in scans if s.subject in of_test), key=lambda s: zlib.crc32(s.path.name.encode()))
    print(f"{described()}\nweights {ensemble.manifest.id}\n")
    as_they_are = graded(ensemble, unseen, lambda volume: volume)
    print_verdicts(as_they_are)
    print_parts(unseen, as_they_are)
    heads = [s for s in sources(arguments.brains) + phantoms(PHANTOMS) if subject_name(s.patient) in of_test]
    print_held(ensemble, unseen[: arguments.scans], heads, arguments.scans, arguments.seed)
    print_cross_talk(ensemble, heads, arguments.heads, arguments.seed)


def graded(ensemble: Ensemble, scans: Iterable[Scan], altered: Callable[[Volume], Volume]) -> Graded:
    """Grade the scans' volumes as they are after an alteration."""
    kept = list(scans)
    said = [ensemble.grade(network_input(altered(volume_from_nifti(s.path)))) for s in progress(kept, "grade")]
    return Graded(np.array([scan.labels for scan in kept]), said)


def print_verdicts(its: Graded) -> None:
    """How many scans without any artifact would be repeated, and how many with a severe one."""
    decisions = np.array([verdict(grades).decision is Decision.RESCAN for grades in its.said])
    worst = its.truth.max(1)
    likeliest = np.array([max(grade.probabilities[2] for grade in grades.values()) for grades in its.said])
    threshold = np.quantile(likeliest[worst == 2], 0.1)
    print("| the worst in a scan | scans | rescan by the default policy ", end="")
    print(f"| some P(severe) ≥ {threshold:.2f}, which finds nine in ten severe |\n|---|---|---|---|")
    for severity, name in enumerate(("no artifact", "moderate at most", "a severe artifact")):
        of_it = worst == severity
        shares = decisions[of_it].mean(), (likeliest[of_it] >= threshold).mean()
        print(f"| {name} | {of_it.sum()} | {shares[0]:.1%} | {shares[1]:.1%} |")
    print(flush=True)


def print_parts(scans: Sequence[Scan], its: Graded) -> None:
    """Macro F1 of scans of each weighting, and of each plane."""
    records = [
        json.loads(scan.path.with_name(scan.path.name.replace(".nii.gz", ".json")).read_text()) for scan in scans
    ]
    print_heading()
    for what in ("weighting", "plane"):
        for value in sorted({record[what] for record in records}):
            of_it = [i for i, record in enumerate(records) if record[what] == value]
            print_row(f"{value} ({len(of_it)} scans)", Graded(its.truth[of_it], [its.said[i] for i in of_it]))
    print(flush=True)


def print_held(ensemble: Ensemble, scans: Sequence[Scan], found: Sequence[Source], count: int, seed: int) -> None:
    """Macro F1 of each artifact, as it is and with what must not matter changed."""
    print_heading()
    for name, altered in ALTERED.items():
        print_row(name.format(len(scans)), graded(ensemble, scans, altered))
    again = [again_simulated(ensemble, found, seed, number) for number in progress(range(count), "simulate")]
    complete = [made for made in again if made is not None]
    truth = np.array([truth for truth, _ in complete])
    for column, name in enumerate(HEADS):
        print_row(name.format(len(complete)), Graded(truth, [said[column] for _, said in complete]))
    print(flush=True)


def print_heading() -> None:
    """Of a table of macro F1."""
    print("| macro F1 |" + "|".join(f" {artifact} " for artifact in Artifact) + "| mean |")
    print("|---" * (len(Artifact) + 2) + "|")


def print_row(name: str, its: Graded) -> None:
    """Each artifact's macro F1, and their mean."""
    each = list(its.macro_f1().values())
    print(f"| {name} |" + "|".join(f" {f1:.2f} " for f1 in each) + f"| {np.mean(each):.2f} |", flush=True)


def without_background(volume: Volume) -> Volume:
    """Zero outside the head's outline, as some reconstructions deliver it."""
    smooth = ndimage.gaussian_filter(volume.array, (0.5, 2, 2))
    outline = smooth > 0.15 * np.percentile(smooth, 95)
    pieces, _ = ndimage.label(outline)
    largest = pieces == np.bincount(pieces[outline]).argmax()
    filled = np.stack([ndimage.binary_fill_holes(each) for each in largest])
    return Volume(np.where(filled, volume.array, 0).astype(np.float32), volume.affine)


def windowed(volume: Volume) -> Volume:
    """As exported through a window: the brightest hundredth is cut off, and what is below 1 % of it."""
    top = np.percentile(volume.array, 99)
    return Volume(np.clip(volume.array, 0.01 * top, top) - np.float32(0.01 * top), volume.affine)


ALTERED: dict[str, Callable[[Volume], Volume]] = {
    "{} scans of the corpus": lambda volume: volume,
    "– background set to zero": without_background,
    "– intensities times 0.013": lambda volume: Volume(volume.array * np.float32(0.013), volume.affine),
    "– the brightest hundredth cut off": windowed,
}
HEADS = ("{} scans of an adult's size", "– another skull and other tissue signals", "– a newborn's size")


def again_simulated(
    ensemble: Ensemble, found: Sequence[Source], seed: int, number: int
) -> tuple[list[int], list[Grades]] | None:
    """One draw of artifacts on three heads: an adult's, the same with another skull, the same at a newborn's size."""
    generator = np.random.default_rng([seed, number])
    levels = draw_levels(generator)
    for _ in range(_ATTEMPTS):
        source, plane = choose(found, generator), list(Plane)[generator.integers(3)]
        weighting, drawn = str(generator.choice(WEIGHTINGS, p=WEIGHTING_SHARES)), draw(generator, levels)
        one, other = (int(s) for s in generator.integers(2**31, size=2))
        try:
            volumes = [
                simulated(source, plane, weighting, drawn, length, skull)
                for length, skull in ((ADULT, one), (ADULT, other), (NEWBORN, one))
            ]
        except OutOfContract:
            continue
        return [levels[a] for a in Artifact], [ensemble.grade(network_input(volume)) for volume in volumes]
    return None


def simulated(source: Source, plane: Plane, weighting: str, drawn: Draw, length: float, seed: int) -> Volume:
    """The drawn artifacts on a head of this length (of an adult's), its skull and tissue signals by the seed."""
    generator = np.random.default_rng(seed)
    its = head(anatomy(source), weighting, ADULT_LENGTH_MM * length, generator)
    return apply(clean_scan(its, plane, generator), drawn).volume


def print_cross_talk(ensemble: Ensemble, found: Sequence[Source], heads: int, seed: int) -> None:
    """By how much P(moderate or severe) of each artifact rises, on average, when a severe other one is added."""
    error = {
        entry.artifact: entry.figures.calibration_error if entry.figures else float("nan")
        for entry in ensemble.manifest.members
    }
    rises = {artifact: [] for artifact in Artifact}
    for number in progress(range(heads), "add"):
        for artifact, its in added(ensemble, found, [seed, number, 7]).items():
            rises[artifact].append(its)
    print(f"| severe, added to {heads} clean heads |" + "|".join(f" {artifact} " for artifact in Artifact) + "|")
    print("|---" * (len(Artifact) + 1) + "|")
    for added_one, its in rises.items():
        means = np.mean(its, axis=0)
        cells = [
            f" **{mean:+.2f}** " if other is not added_one and mean > error[other] else f" {mean:+.2f} "
            for other, mean in zip(Artifact, means, strict=True)
        ]
        print(f"| {added_one} ({len(its)}) |" + "|".join(cells) + "|")
    print("| calibration error |" + "|".join(f" {error[artifact]:.2f} " for artifact in Artifact) + "|", flush=True)


def added(ensemble: Ensemble, found: Sequence[Source], seed: Sequence[int]) -> dict[Artifact, NDArray[np.float64]]:
    """For one clean head, the rise of every artifact's probability with each severe artifact added to it."""
    generator = np.random.default_rng(seed)
    none = dict.fromkeys(Artifact, Severity.NONE)
    source, plane = choose(found, generator), list(Plane)[generator.integers(3)]
    its = head(anatomy(source), str(generator.choice(WEIGHTINGS, p=WEIGHTING_SHARES)), ADULT_LENGTH_MM, generator)
    scan = clean_scan(its, plane, generator)

    def said(levels: dict[Artifact, Severity]) -> NDArray[np.float64] | None:
        for _ in range(_ATTEMPTS):
            try:
                volume = apply(scan, draw(generator, levels, slight=False)).volume
            except OutOfContract:
                continue
            grades = ensemble.grade(network_input(volume))
            return np.array([grades[a].at_least(Severity.MODERATE) for a in Artifact])
        return None

    clean = said(none)
    if clean is None:
        return {}
    with_it = {artifact: said(none | {artifact: Severity.SEVERE}) for artifact in Artifact}
    return {artifact: its - clean for artifact, its in with_it.items() if its is not None}


if __name__ == "__main__":
    main()
