"""The commands that compare many runs: the paper's tables, and the curve over few labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qcnode.artifacts import Artifact
from qcnode.errors import ConfigError
from train.given import Cache, Data, inputs_of, read_split
from train.studies.comparisons import Scale

app = typer.Typer()


@app.command()
def tables(
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder of runs, tables, figures and report.md.")],
    scale: Annotated[Scale, typer.Option(help="small: hours on two cores; paper: days on a GPU.")] = Scale.SMALL,
    artifact: Annotated[list[Artifact] | None, typer.Option(help="Only these.")] = None,
    folds: Annotated[int, typer.Option(help="Of the cross-validation, by patient.")] = 3,
    repeats: Annotated[int, typer.Option(help="Cross-validate so many times, each with other folds.")] = 1,
    effect_repeats: Annotated[
        int,
        typer.Option(help="Of the four rows that tell reweighting and rotating batches apart; the least is --repeats."),
    ] = 3,
    epochs: Annotated[int | None, typer.Option(help="Of every run; default the scale's own.")] = None,
    workers: Annotated[int, typer.Option(help="Runs at a time on this machine, a thread each.")] = 2,
    scheduler: Annotated[
        str | None, typer.Option(help="A Dask cluster's scheduler, tcp://…, whose machines see the same folders.")
    ] = None,
    cache: Cache = None,
) -> None:
    """Compare encoders, configurations and baselines, as the paper does; what is finished is not run again."""
    from train.studies.jobs import Study
    from train.studies.study import compare

    out.mkdir(parents=True, exist_ok=True)
    study = Study(data.resolve(), (cache or data / ".inputs").resolve(), out.resolve(), folds, repeats)
    report = compare(
        study,
        scale,
        artifact or list(Artifact),
        epochs=epochs,
        effect_repeats=effect_repeats,
        workers=workers,
        scheduler=scheduler,
    )
    typer.echo(report.read_text())


@app.command()
def curve(
    data: Data,
    out: Annotated[Path, typer.Option(help="The folder of runs, curve.csv and curve.svg.")],
    init: Annotated[Path, typer.Option(help="The weights folder whose members to go on from.")],
    config: Annotated[
        Path, typer.Option(help="A TOML file, or a preset's name; encoders it does not name are the weights'.")
    ] = Path("site"),
    scratch: Annotated[
        Path, typer.Option(help="The same of how to train from scratch; its encoders are those of --config.")
    ] = Path("scratch"),
    artifact: Annotated[list[Artifact] | None, typer.Option(help="Only these.")] = None,
    runs: Annotated[Path | None, typer.Option(help="The run whose split to use; default the configuration's.")] = None,
    share: Annotated[list[float] | None, typer.Option(help="Of the training patients; default .1 .25 .5 1.")] = None,
    seeds: Annotated[int, typer.Option(help="How many times, each with other patients in the smaller shares.")] = 1,
    epochs: Annotated[int | None, typer.Option(help="Of every run; default the configuration's.")] = None,
    cache: Cache = None,
) -> None:
    """Macro F1 against the number of labelled patients, from scratch and from weights; interrupted, it goes on.

    Nobody in DATA should be a patient on whom the weights were trained.
    """
    from train.config import read_config
    from train.dataset import read_scans, subject_kinds
    from train.shared import going_on
    from train.split import SHARES, split_subjects
    from train.studies.few_labels import few_labels

    settings = going_on(read_config(config, epochs=epochs), init)
    from_scratch = read_config(scratch, epochs=epochs).going_on_from({a: settings.of(a).kind for a in Artifact})
    if from_scratch.preprocessing != settings.preprocessing:
        raise ConfigError("--config and --scratch have unlike preprocessing; give both the same.")
    drawn = split_subjects(subject_kinds(data, read_scans(data)), settings.seed)
    part_of = read_split(runs) if runs else drawn
    everything = inputs_of(data, cache, part_of, [*SHARES], settings.preprocessing, tasks_of=settings)
    shares, artifacts = share or [0.1, 0.25, 0.5, 1.0], artifact or list(Artifact)
    typer.echo(
        few_labels(from_scratch, settings, artifacts, everything, part_of, init, out, shares=shares, seeds=seeds)
    )
