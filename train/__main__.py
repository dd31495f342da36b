"""`python -m train`: simulate a corpus, fit the members, evaluate them, export what the node loads."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from qcnode.artifacts import Artifact
from qcnode.errors import ConfigError, QcnodeError
from qcnode.imaging.preprocess import PREPROCESSING
from train import commands, simulate_command
from train.given import SPLIT, Cache, Contrasts, Data, inputs_of, read_split, test_inputs
from train.progress import progress

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(simulate_command.app)
app.add_typer(commands.app)


@app.callback()
def main_options(
    context: typer.Context, debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False
) -> None:
    """Train the ensemble on a folder in the LISA layout."""
    is_first = os.environ.get("RANK", "0") == "0"  # torchrun's
    logging.basicConfig(level=logging.INFO if is_first else logging.WARNING, format="%(asctime)s %(message)s")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from train.ranks import together

        if context.invoked_subcommand != "fit":
            raise ConfigError(f"Only fit trains in several processes; start {context.invoked_subcommand} by itself.")
        context.with_resource(together())


@app.command()
def render(
    source: Annotated[Path, typer.Argument(help="The folder of source brains.")],
    out: Annotated[Path, typer.Argument(help="The folder to write, for `fit --renders`.")],
    count: Annotated[int, typer.Option(help="Scans to render, some hundreds in a file.")] = 12000,
    seed: int = 7,
    moving: Annotated[bool, typer.Option("--moving", help="Some with motion, some with zippers.")] = False,
    reshaped: Annotated[
        Path | None, typer.Option(help="A run's folder: its training subjects alone, in shapes drawn from theirs.")
    ] = None,
) -> None:
    """Make many more scans from brains, as coarse as the encoders that look at whole heads see them."""
    from train.simulation.renders import render_corpus
    from train.split import TRAIN, subjects_of

    subjects = sorted(subjects_of(read_split(reshaped), TRAIN)) if reshaped else None
    render_corpus(source, out, count, seed, moving=moving, subjects=subjects)


@app.command()
def fit(
    data: Data,
    out: Annotated[Path, typer.Option(help="The run's folder: members, records, the split.")],
    artifact: Annotated[list[Artifact] | None, typer.Option(help="Only these members.")] = None,
    encoder: Annotated[str | None, typer.Option(help="By name: docs/training-reference.md lists them.")] = None,
    width: Annotated[int | None, typer.Option(help="Of the encoder's first stage; default its own.")] = None,
    loss: Annotated[str | None, typer.Option(help="cross-entropy, weighted, focal or corn.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of each member.")] = None,
    batching: Annotated[str | None, typer.Option(help="rotating or standard.")] = None,
    reweight: Annotated[bool | None, typer.Option(help="BRIQA's gradient reweighting.")] = None,
    seed: int | None = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file, or a preset's name; options given here win.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="An earlier run (of fit, or pretrain) whose split and encoder to go on from.")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="A weights folder whose members to go on from.")] = None,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validate: so many runs, each tested on its own fold.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Cross-validate so many times, each with other folds.")] = 1,
    renders: Annotated[
        Path | None, typer.Option(help="What `render` wrote: more scans for members that look at blocks of voxels.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write OUT/tensorboard.")] = False,
    weights: Annotated[
        Path | None, typer.Option("--export", help="Then write this weights folder, as `export` does.")
    ] = None,
    contrast: Contrasts = None,
    cache: Cache = None,
) -> None:
    """Train the members, each with its best epoch on validation subjects; test subjects are left alone.

    An interrupted run that is started again goes on from its last epoch.
    """
    from train import ranks
    from train.board import require_board
    from train.config import read_config
    from train.dataset import read_scans, subject_kinds
    from train.run import fit_run
    from train.shared import going_on
    from train.simulation.renders import read_renders
    from train.split import TRAIN, VALIDATION, split_subjects, subjects_of
    from train.studies.counts import counts_table, refuse_absent
    from train.studies.folds import cross_validated
    from train.studies.forest import forest_graded, measured
    from train.studies.report import figures, record, table

    overrides = {"encoder": encoder, "width": width, "loss": loss, "epochs": epochs, "batching": batching}
    settings = read_config(config, **overrides, reweight=reweight, seed=seed)
    if init:
        settings = going_on(settings, init)
    if weights and (folds or artifact or settings.model == "forest"):
        raise ConfigError("--export needs all seven members of one run; leave out --folds and --artifact, or --export.")
    scans, artifacts = read_scans(data), artifact or list(Artifact)
    if tensorboard:
        require_board()
    out.mkdir(parents=True, exist_ok=True)
    if folds is None:
        known = read_split(start) if start else None
        part_of = split_subjects(subject_kinds(data, scans), settings.seed, known)
        refuse_absent(scans, part_of, artifacts)
        with ranks.first_one_first():
            if ranks.is_first():
                typer.echo(counts_table(scans, part_of))
                (out / SPLIT).write_text(json.dumps(part_of, indent=1, sort_keys=True) + "\n")
            everything = inputs_of(data, cache, part_of, [TRAIN, VALIDATION], settings.preprocessing, tasks_of=settings)
        if settings.model == "forest":
            training, validation = (
                everything.of(subjects_of(part_of, TRAIN)),
                everything.of(subjects_of(part_of, VALIDATION), copies=False),
            )
            found = forest_graded(measured(everything), artifacts, training, validation, settings.seed)
            typer.echo(f"\nvalidation\n\n{table({a: figures(its) for a, its in found.items()})}")
            return
        more = read_renders(renders) if renders else None
        board = out / "tensorboard" if tensorboard else None
        fit_run(settings, artifacts, everything, part_of, out, earlier=start, init=init, renders=more, board=board)
        if weights and ranks.is_first():
            export(data, out, weights, contrast=contrast, cache=cache)
    elif start:
        raise ConfigError("--folds makes splits of its own and --start keeps a run's; leave one of them out.")
    elif ranks.count() > 1:
        raise ConfigError("--folds trains in one process; start it without torchrun, or leave --folds out.")
    else:
        typer.echo(counts_table(scans, {}))
        everything = inputs_of(data, cache, None, [], settings.preprocessing, tasks_of=settings)
        plain = inputs_of(data, cache, None, [])
        results = cross_validated(
            settings, artifacts, everything, out, count=folds, repeats=repeats, plain=plain, init=init
        )
        report = {name: record(found) for name, found in results._asdict().items()}
        (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        for name, found in results._asdict().items():
            typer.echo(f"\n{name}\n\n{table({artifact: figures(its) for artifact, its in found.items()})}")


@app.command()
def pretrain(
    data: Annotated[Path, typer.Option(help="A folder of scans named as in the LISA layout; no labels are needed.")],
    out: Annotated[Path, typer.Option(help="The run's folder, for `fit --start`.")],
    config: Annotated[Path | None, typer.Option(help="A TOML file, or a preset's name.")] = None,
    encoder: Annotated[str | None, typer.Option(help="By name: docs/training-reference.md lists them.")] = None,
    width: Annotated[int | None, typer.Option(help="Of the encoder's first stage; default its own.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Of the pre-training.")] = None,
    seed: int | None = None,
    cache: Cache = None,
) -> None:
    """Train an encoder to tell scans apart, without labels (SimCLR); `fit --start` begins from it.

    Of subjects with labels, only those that `fit` will train on are used.
    """
    from train.config import read_config
    from train.dataset import LABELS, cached_input, found_scans, read_scans, subject_kinds
    from train.pretrain import pretrain as pretrained
    from train.split import TRAIN, split_subjects

    settings = read_config(config, encoder=encoder, width=width, pretrain_epochs=epochs, seed=seed)
    found, rated = found_scans(data), read_scans(data) if (data / LABELS).is_file() else []
    part_of = split_subjects(subject_kinds(data, rated), settings.seed) if rated else {}
    part_of = dict.fromkeys((scan.subject for scan in found), TRAIN) | part_of
    out.mkdir(parents=True, exist_ok=True)
    (out / SPLIT).write_text(json.dumps(part_of, indent=1, sort_keys=True) + "\n")
    chosen = [scan for scan in found if part_of[scan.subject] == TRAIN]
    images = [
        cached_input(scan, cache or data / ".inputs", settings.preprocessing) for scan in progress(chosen, "read")
    ]
    pretrained(settings, [scan.path.name for scan in chosen], images, out)


@app.command()
def bend(
    source: Annotated[Path, typer.Argument(help="The folder of source brains.")],
    out: Annotated[Path, typer.Option(help="The run's folder, for `fit --start`.")],
    start: Annotated[Path, typer.Option(help="The run whose split to use, and whose encoder to begin with.")],
    config: Annotated[Path, typer.Option(help="A TOML file, or a preset's name; its encoder is atlas-resnet.")] = Path(
        "shipped-atlas"
    ),
    epochs: Annotated[int | None, typer.Option(help="Of 100 batches of some 48 scans, each of which is new.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="A weights folder whose Distortion member's mirror-resnet to put beside it.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that make scans, beside the one that trains.")] = 2,
) -> None:
    """Train an encoder to tell bent heads from others, on heads bent anew in every batch; `fit --start` begins from it.

    Only heads of the split's training subjects are learned from; those of its validation subjects are measured on.
    """
    from train.bend import bend as bent
    from train.config import read_config
    from train.dataset import subject_name
    from train.simulate import PHANTOMS
    from train.simulation.brains import phantoms, sources
    from train.split import TRAIN, VALIDATION, subjects_of

    part_of = read_split(start)
    found = sources(source) + phantoms(PHANTOMS)
    training, validation = (
        [its for its in found if subject_name(its.patient) in subjects_of(part_of, part)]
        for part in (TRAIN, VALIDATION)
    )
    if len(training) < 2 or not validation:
        raise ConfigError(f"{source} holds too few of the subjects of {start}; name the folder of its corpus's brains.")
    out.mkdir(parents=True, exist_ok=True)
    (out / SPLIT).write_text(json.dumps(part_of, indent=1, sort_keys=True) + "\n")
    settings = read_config(config, pretrain_epochs=epochs)
    bent(settings, training, validation, out, start=start, init=init, workers=workers)


@app.command()
def evaluate(
    data: Data,
    weights: Annotated[Path | None, typer.Option(help="A weights folder; default the shipped one.")] = None,
    runs: Annotated[Path | None, typer.Option(help="The run whose test subjects to use; default everybody.")] = None,
    forest: Annotated[
        bool | None,
        typer.Option(
            "--forest/--no-forest",
            help="Forests of image-quality metrics, from RUN's training: instead of weights, or not even beside them.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    cache: Cache = None,
) -> None:
    """Measure weights, with RUN beside the baseline without a network, on rated scans: all, and by plane, kind, size.

    What the baseline measures takes a third of a second a scan, once: it is kept in the cache.
    """
    from qcnode.ensemble.runtime import Ensemble
    from train.studies.forest import forests_of_run
    from train.studies.groups import groups_of
    from train.studies.report import graded, macro_f1s, record, tables

    if forest and (weights or not runs):
        raise ConfigError("--forest learns from the training subjects of a run: name it with --runs, and no --weights.")
    ensemble = None if forest else Ensemble.load(weights)
    test = test_inputs(data, cache, runs, ensemble.preprocessing if ensemble else PREPROCESSING)
    forests = forests_of_run(data, cache, runs) if runs and forest is not False else {}
    if forest and not forests:
        raise ConfigError(f"No scan in {data} is of a training subject of {runs}; name the data that it was made from.")
    found, beside = (graded(ensemble, test), macro_f1s(forests)) if ensemble else (forests, {})
    groups = groups_of(data, test.scans)
    if as_json:
        typer.echo(json.dumps(record(found, groups, beside), indent=2))
    else:
        typer.echo(tables(found, groups, beside))


@app.command()
def export(
    data: Data,
    runs: Annotated[Path, typer.Option(help="The run's folder.")],
    out: Annotated[Path, typer.Option(help="The weights folder to write.")],
    name: Annotated[str, typer.Option(help="The ensemble's name; its id adds a digest of the members.")] = "site",
    severity_definition: Annotated[str, typer.Option(help="What 0, 1 and 2 mean in the labels.")] = "site-raters",
    contrast: Contrasts = None,
    forest: Annotated[
        bool, typer.Option(help="Measure the baseline without a network on the same subjects, as `evaluate` does.")
    ] = True,
    cache: Cache = None,
) -> None:
    """Write a weights folder and its model card, calibrated on validation subjects and measured on test subjects."""
    from qcnode.ensemble.runtime import Ensemble
    from train.card import model_card
    from train.export import add_figures, calibrated, extents_of, with_extents, write_card, write_weights
    from train.split import TRAIN, VALIDATION
    from train.studies.forest import forests_of_run
    from train.studies.groups import groups_of
    from train.studies.report import figures, graded, macro_f1s, table

    manifest = write_weights(
        runs,
        out,
        name=name,
        severity_definition=severity_definition,
        contrasts=contrast or ["T2w"],
        created=datetime.now(UTC).replace(microsecond=0),
    )
    split = read_split(runs)
    extents = extents_of(inputs_of(data, cache, split, [TRAIN], manifest.preprocessing))
    manifest = with_extents(manifest, extents, out)
    validation = inputs_of(data, cache, split, [VALIDATION], manifest.preprocessing, copies=False)
    manifest = calibrated(manifest, Ensemble.load(out), validation, out)
    test = test_inputs(data, cache, runs, manifest.preprocessing)
    found = graded(Ensemble.load(out), test)
    measured = {a: figures(its) for a, its in found.items()}
    manifest = add_figures(manifest, measured, out)
    beside = macro_f1s(forests_of_run(data, cache, runs)) if forest else {}
    write_card(model_card(manifest, found, groups_of(data, test.scans), extents=extents, forests=beside), out)
    typer.echo(table(measured, beside))


def main(argv: list[str] | None = None, run: Callable[..., object] = app) -> int:
    """Run the command line; 0 done, 1 failed, 2 configuration or usage."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        run(arguments, standalone_mode=True)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except QcnodeError as error:
        if "--debug" in arguments:
            raise
        typer.echo(str(error), err=True)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        if error.errno != errno.ENOSPC or "--debug" in arguments:
            raise
        typer.echo("The disk is full; make room and give the command again: it goes on from what is there.", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
