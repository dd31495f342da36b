"""Repeated cross-validation: every patient is tested once a repeat, by members that never saw one of their scans."""

from __future__ import annotations

import csv
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.torch import load_file
from sklearn.model_selection import StratifiedGroupKFold

from qcnode.artifacts import Artifact, Severity
from qcnode.ensemble.calibration import probabilities
from qcnode.ensemble.model import channels_last
from qcnode.errors import ConfigError
from train.calibrate import fitted_calibration
from train.config import FitConfig
from train.dataset import Inputs, Scan
from train.loop import severity_logits
from train.run import fit_run
from train.sampling.feed import device
from train.shared import new_member
from train.split import TEST, TRAIN, VALIDATION, subjects_of
from train.studies.counts import refuse_absent
from train.studies.forest import forest_graded, measured
from train.studies.report import Graded

log = logging.getLogger(__name__)
PREDICTIONS = "predictions.csv"


def folds(scans: Sequence[Scan], count: int, seed: int) -> dict[str, int]:
    """Each subject's fold, from 0: subjects stay whole, and every artifact's severities are spread evenly.

    Stratified by all artifacts at once: to the splitter each scan is seven samples, one an artifact, whose class is the
    artifact and its severity. Raises ConfigError for fewer folds than three, or fewer subjects than folds.
    """
    scans = [scan for scan in scans if not scan.is_copy]
    subjects = [scan.subject for scan in scans]
    if not 3 <= count <= len(set(subjects)):
        raise ConfigError(f"--folds {count} does not fit {len(set(subjects))} patients; choose from 3 to their number.")
    classes = np.concatenate([np.arange(len(Artifact)) * len(Severity) + scan.labels for scan in scans])
    owners = np.repeat(subjects, len(Artifact))
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    fold_of: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)  # refuse_absent says what matters
        for fold, (_, tested) in enumerate(splitter.split(classes, classes, owners)):
            fold_of |= {str(subject): fold for subject in owners[tested]}
    return fold_of


def parts(fold_of: Mapping[str, int], fold: int) -> dict[str, str]:
    """The split in which this fold is tested, the next one chooses the epoch, and the others train."""
    after = (fold + 1) % (max(fold_of.values()) + 1)
    return {subject: TEST if its == fold else VALIDATION if its == after else TRAIN for subject, its in fold_of.items()}


class Results(NamedTuple):
    """What the configuration's models say of every subject, and what forests say on the same folds."""

    members: dict[Artifact, Graded]
    forests: dict[Artifact, Graded]


def cross_validated(
    config: FitConfig,
    artifacts: Sequence[Artifact],
    scans: Inputs,
    out: Path,
    *,
    count: int,
    repeats: int,
    plain: Inputs,
    init: Path | None = None,
) -> Results:
    """What the members of each fold say of its subjects, pooled over folds and repeats; and the baseline's word.

    Each repeat has its own folds and its own seed. Every run lies in out/repeat-R/fold-F with its predictions.csv.
    plain: the same scans as the baseline sees them, preprocessed as grid-1.
    """
    configs = [config.model_copy(update={"seed": config.seed + repeat}) for repeat in range(repeats)]
    fold_ofs = [folds(scans.scans, count, its.seed) for its in configs]
    for fold_of in fold_ofs:  # before hours are spent
        for fold in range(count):
            refuse_absent(scans.scans, parts(fold_of, fold), artifacts)
    metrics = measured(plain)
    results: list[Results] = []
    for repeat, (its, fold_of) in enumerate(zip(configs, fold_ofs, strict=True), start=1):
        for fold in range(count):
            log.info("fold_started repeat=%d/%d fold=%d/%d", repeat, repeats, fold + 1, count)
            run, part_of = out / f"repeat-{repeat}" / f"fold-{fold + 1}", parts(fold_of, fold)
            test = scans.of(subjects_of(part_of, TEST), copies=False)
            others = scans.of(part_of.keys() - subjects_of(part_of, TEST))
            forests = forest_graded(metrics, artifacts, others, test, its.seed)
            if its.model == "forest":
                run.mkdir(parents=True, exist_ok=True)
                members = forests
            else:
                fit_run(its, artifacts, scans, part_of, run, init=init)
                members = {artifact: tested(its.of(artifact), artifact, scans, part_of, run) for artifact in artifacts}
            save_predictions(members, test, run)
            results.append(Results(members, forests))
    return Results(
        {artifact: together([each.members[artifact] for each in results]) for artifact in artifacts},
        {artifact: together([each.forests[artifact] for each in results]) for artifact in artifacts},
    )


def tested(config: FitConfig, artifact: Artifact, scans: Inputs, part_of: Mapping[str, str], run: Path) -> Graded:
    """The run's member on the test subjects, calibrated on the validation subjects as an export is."""
    member = new_member(config)
    member.load_state_dict(load_file(run / f"{artifact}.safetensors"))
    member = channels_last(member.to(device()))
    validation, test = (scans.of(subjects_of(part_of, part), copies=False) for part in (VALIDATION, TEST))
    index = list(Artifact).index(artifact)
    seen, unseen = (
        severity_logits(member, lambda images: member(images).severity, data, bf16=False) for data in (validation, test)
    )
    calibration = fitted_calibration(seen, validation.labels[:, index])
    subjects = [scan.subject for scan in test.scans]
    return Graded(subjects, test.labels[:, index], probabilities(unseen, calibration), calibration.emphasis)


def together(each: Sequence[Graded]) -> Graded:
    """What was said over several folds, as one."""
    return Graded(
        [subject for its in each for subject in its.subjects],
        np.concatenate([its.truth for its in each]),
        np.concatenate([its.probabilities for its in each]),
    )


def save_predictions(found: Mapping[Artifact, Graded], test: Inputs, run: Path) -> None:
    """Write what was said of every test scan beside the truth: run/predictions.csv."""
    partial = run / f"{PREDICTIONS}.partial"
    with partial.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename", "artifact", "truth", *(f"p{severity:d}" for severity in Severity)])
        for artifact, its in found.items():
            for scan, truth, p in zip(test.scans, its.truth, its.probabilities, strict=True):
                table.writerow([scan.path.name, artifact, truth, *(f"{value:.6f}" for value in p)])
    partial.replace(run / PREDICTIONS)
