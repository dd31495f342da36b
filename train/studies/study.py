"""The comparison from start to end: runs, the baselines beside them, the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qcnode.artifacts import Artifact
from qcnode.imaging.preprocess import BLOCKS, PREPROCESSING
from train.dataset import Inputs, cached_input, inputs, read_scans
from train.figures import draw_effects, draw_figures
from train.metrics import majority
from train.progress import progress
from train.sampling.looks import looked_at, looks
from train.split import TEST, subjects_of
from train.studies import comparisons
from train.studies.comparisons import Row, Scale
from train.studies.counts import counts_table
from train.studies.folds import together
from train.studies.forest import forest_graded, measured
from train.studies.jobs import LOOKS, Study, run_all
from train.studies.report import Graded
from train.tables import (
    Measure,
    chosen_table,
    configuration_table,
    effect_table,
    encoder_table,
    jobs_of,
    said,
    write_table,
)


def compare(
    study: Study,
    scale: Scale,
    artifacts: Sequence[Artifact],
    *,
    epochs: int | None = None,
    effect_repeats: int = 1,
    workers: int = 2,
    scheduler: str | None = None,
) -> Path:
    """Run what of the three comparisons is not done yet, and write `out/report.md`, whose path it returns.

    epochs: of every run, instead of the scale's own. effect_repeats: of the four rows that tell reweighting and
    rotating batches apart, where it is more than the study's.
    """
    more = replace(study, repeats=max(study.repeats, effect_repeats))
    more.refuse_absent(artifacts)
    method, base = comparisons.briqa(scale), comparisons.baseline(scale)
    encoders, configurations = comparisons.encoders(scale), comparisons.configurations(scale)
    rows = {row.name: _only(row, artifacts, epochs) for row in [*encoders, *configurations, base]}
    scans = read_scans(study.data)
    configs = [its for row in rows.values() for its in row.configs.values()]
    for kind in {its.preprocessing for its in configs}:
        images = [cached_input(scan, study.cache, kind) for scan in progress(scans, "read")]
        for encoder in {its.encoder for its in configs if its.preprocessing == kind and looks(its.encoder)}:
            looked_at(encoder, inputs(scans, images), study.out / LOOKS)  # once, before many runs want the same
    four = {key: _only(row, artifacts, epochs) for key, row in comparisons.effects(scale).items()}
    jobs = [job for row in [*four.values(), *rows.values()] for job in jobs_of(row, study)]
    jobs += sorted((job for row in four.values() for job in jobs_of(row, more)), key=lambda job: job.repeat)
    run_all(jobs, study, workers=workers, scheduler=scheduler)

    subject_of = {scan.path.name: scan.subject for scan in scans}
    found = {name: said(row, study, subject_of) for name, row in rows.items()}
    measure = Measure([scan.subject for scan in scans])
    repeats = range(1, more.repeats + 1)
    repeated = {key: [said(row, more, subject_of, repeat) for repeat in repeats] for key, row in four.items()}
    is_of_blocks = all(its.preprocessing == BLOCKS for its in configs)
    forest, usual = _without_network(study, artifacts, BLOCKS if is_of_blocks else PREPROCESSING)
    others = {"baseline": found[base.name], "forest of metrics": forest, "always the commonest": usual}
    of_encoders = {row.name: found[row.name] for row in encoders}
    tables = {
        "encoders": encoder_table(of_encoders, measure),
        "configurations": configuration_table({row.name: found[row.name] for row in configurations}, measure),
        "chosen": chosen_table(of_encoders, others, measure),
        "effects": effect_table(repeated, measure),
    }
    written = {name: write_table(cells, study.out / f"{name}.csv") for name, cells in tables.items()}
    method_jobs = jobs_of(rows[method.name], study)
    figures = draw_figures(found[method.name], measure, method_jobs, study, study.out / "figures")
    figures.append(draw_effects(repeated, measure, study.out / "figures"))
    report = study.out / "report.md"
    report.write_text(_report(study, scale, more.repeats, counts_table(scans, {}), written, figures))
    return report


def _only(row: Row, artifacts: Sequence[Artifact], epochs: int | None) -> Row:
    row = row if epochs is None else row.but(row.name, epochs=epochs)
    return Row(row.name, {artifact: row.configs[artifact] for artifact in artifacts})


def _without_network(
    study: Study, artifacts: Sequence[Artifact], preprocessing: str
) -> tuple[Mapping[Artifact, Graded], Mapping[Artifact, Graded]]:
    """What forests of image-quality metrics say on the same folds, and what always naming the commonest says."""
    scans = read_scans(study.data)
    plain = inputs(scans, [cached_input(scan, study.cache, preprocessing) for scan in scans])
    metrics = _metrics(plain, study.out / "metrics.npz")
    forests, usual = [], []
    for repeat in range(1, study.repeats + 1):
        for fold in range(1, study.folds + 1):
            part_of = study.parts(repeat, fold)
            test = plain.of(subjects_of(part_of, TEST), copies=False)
            training = plain.of(part_of.keys() - subjects_of(part_of, TEST))
            forests.append(forest_graded(metrics, artifacts, training, test, seed=repeat))
            usual.append({artifact: _commonest(training, test, artifact) for artifact in artifacts})
    return (
        {artifact: together([each[artifact] for each in forests]) for artifact in artifacts},
        {artifact: together([each[artifact] for each in usual]) for artifact in artifacts},
    )


def _metrics(plain: Inputs, path: Path) -> Mapping[str, NDArray[np.float64]]:
    """Every scan's image-quality metrics, measured once."""
    if path.is_file():
        with np.load(path) as known:
            rows = {name: known[name] for name in known.files}
        if rows.keys() == {scan.path.name for scan in plain.scans}:
            return rows
    rows = measured(plain)
    np.savez(path, **rows)  # type: ignore[arg-type] # names are the files'
    return rows


def _commonest(training: Inputs, test: Inputs, artifact: Artifact) -> Graded:
    index = list(Artifact).index(artifact)
    named = int(majority(training.labels[:, index])[0])
    subjects = [scan.subject for scan in test.scans]
    return Graded(subjects, test.labels[:, index], np.tile(np.eye(3)[named], (len(subjects), 1)))


def _report(
    study: Study, scale: Scale, repeats: int, counts: str, tables: Mapping[str, str], figures: Sequence[Path]
) -> str:
    rotated = ' "Rotated" is variation by half-turns.' if ", rotated |" in tables["configurations"] else ""
    pictures = "\n".join(f"![{path.stem}](figures/{path.name})" for path in figures)
    return f"""# Encoders, configurations, baselines

Scale `{scale}`; {study.folds} folds by patient, {study.repeats} time(s). Every figure is of patients that neither the
weights, the epoch nor the calibration were chosen on. Intervals are 95 %, from a Bayesian bootstrap of patients;
those of a difference are from the same draws in both rows. Made by `python -m train tables`.

{counts}

## Encoders (the paper's Table 2)

{tables["encoders"]}

## Configurations (Table 3)

{tables["configurations"]}

The last row is not the paper's. A difference whose interval holds 0 shows nothing, and one of a single repeat is also
the seed's (below).{rotated}

## Reweighting and rotating batches

Four of the rows above, {repeats} time(s), each with folds and a seed of its own. In brackets the interval of the mean
over the repeats, by patient; then how much repeats differ.

{tables["effects"]}

## Best encoder by artifact (Table 4)

The best is chosen on the patients that it is measured on, as the paper does, which flatters it.

{tables["chosen"]}

## The method by artifact

{pictures}
"""
