"""How many labelled patients are enough: macro F1 against their share, from scratch and from a weights folder.

The patients of a smaller share are among those of a larger one; those who choose the epoch, and those who are tested,
stay the same. Each artifact is trained by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcnode.artifacts import Artifact, Severity
from train.config import FitConfig
from train.dataset import Inputs
from train.figures import draw_shares
from train.run import can_draw, fit_run
from train.sampling.looks import looked_at, looks
from train.split import TEST, TRAIN, subjects_of
from train.studies.folds import save_predictions, tested
from train.studies.jobs import LOOKS
from train.tables import MACRO_F1, Measure, told, write_table

SCRATCH, INIT = "from scratch", "from the weights"


@dataclass(frozen=True)
class Point:
    """What one share of the patients gave. macro_f1: (seed, 1 + draws); empty where it cannot be, and why."""

    artifact: Artifact
    start: str
    share: float
    patients: int
    scans: int
    macro_f1: NDArray[np.float64]
    why_not: str = ""


def fewer(part_of: Mapping[str, str], share: float, seed: int) -> dict[str, str]:
    """The split with only this share of its training subjects, one at least; a larger share holds a smaller one's."""
    order = sorted(subjects_of(part_of, TRAIN), key=lambda s: hashlib.sha256(f"{seed}/{s}".encode()).digest())
    left_out = set(order[max(1, round(share * len(order))) :])
    return {subject: part for subject, part in part_of.items() if subject not in left_out}


def few_labels(
    scratch: FitConfig,
    site: FitConfig,
    artifacts: Sequence[Artifact],
    scans: Inputs,
    part_of: Mapping[str, str],
    init: Path,
    out: Path,
    *,
    shares: Sequence[float],
    seeds: int,
) -> str:
    """Train what is not trained yet, write `out/curve.csv` and `out/curve.svg`, and return the table as Markdown.

    scratch, site: how to train from scratch, and from `init`, the weights folder; their encoders are the same.
    seeds: how many times, with other patients in the smaller shares and other weights.
    """
    points = []
    for artifact in artifacts:
        its = site.of(artifact)
        seen = looked_at(its.encoder, scans, out / LOOKS) if looks(its.encoder) else scans
        for share in shares:
            for config, weights in ((scratch, None), (site, init)):
                points.append(_point(config, artifact, seen, part_of, weights, out, share=share, seeds=seeds))
    draw_shares(points, out / "curve.svg")
    cells = [["artifact", "share", "patients", "scans", "start", "macro F1 (95 %; SD between seeds)"]]
    for point in points:
        told_f1 = f"—, {point.why_not}"
        if point.macro_f1.size:
            spread = f"; SD {point.macro_f1[:, 0].std(ddof=1):.3f}" if seeds > 1 else ""
            told_f1 = told(point.macro_f1.mean(0)) + spread
        numbers = [f"{point.share:.0%}", str(point.patients), str(point.scans)]
        cells.append([point.artifact, *numbers, point.start, told_f1])
    return write_table(cells, out / "curve.csv")


def _point(
    config: FitConfig,
    artifact: Artifact,
    scans: Inputs,
    part_of: Mapping[str, str],
    init: Path | None,
    out: Path,
    *,
    share: float,
    seeds: int,
) -> Point:
    start, found = INIT if init else SCRATCH, []
    test = scans.of(subjects_of(part_of, TEST), copies=False)
    measure = Measure([scan.subject for scan in test.scans])
    for seed in range(config.seed, config.seed + seeds):
        chosen = fewer(part_of, share, seed)
        training = scans.of(subjects_of(chosen, TRAIN))
        patients, count = len(subjects_of(chosen, TRAIN)), len(training.scans)
        severities = np.unique(training.labels[:, list(Artifact).index(artifact)])
        if len(severities) < len(Severity):
            return Point(artifact, start, share, patients, count, np.empty((0, 0)), "a severity has no scan")
        if not init and not can_draw(config.of(artifact)):
            return Point(artifact, start, share, patients, count, np.empty((0, 0)), "learns to draw from truths alone")
        its = config.model_copy(update={"seed": seed})
        run = out / "runs" / artifact / start.replace(" ", "-") / f"share-{share:g}" / f"seed-{seed}"
        fit_run(its, [artifact], scans, chosen, run, init=init)
        graded = tested(its.of(artifact), artifact, scans, chosen, run)
        save_predictions({artifact: graded}, test, run)
        found.append(measure.of(graded)[:, MACRO_F1])
    return Point(artifact, start, share, patients, count, np.stack(found))
