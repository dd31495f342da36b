"""The command that makes scans with known artifacts."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from qcnode.errors import ConfigError
from train.given import read_split
from train.simulation.prevalence import Prevalence
from train.split import TEST, TRAIN, VALIDATION, subjects_of

app = typer.Typer()


class Simulation(StrEnum):
    """A way of making scans with known artifacts."""

    CONTRACT = "contract"  # physically, from brains; every label measured (docs/severity.md)
    PAPER = "paper"  # TorchIO's transforms on rated scans, as Sundaresan and BRIQA


class Weighting(StrEnum):
    """What a scan shows of the tissues, as `train.simulation.contrasts` has it."""

    T2W = "T2w"
    T1W = "T1w"
    FLAIR = "FLAIR"


class Part(StrEnum):
    """Of a run's subjects."""

    TRAIN = TRAIN
    VALIDATION = VALIDATION
    TEST = TEST


@app.command()
def simulate(
    source: Annotated[Path, typer.Argument(help="contract: the folder of source brains; paper: rated scans.")],
    out: Annotated[Path, typer.Argument(help="The LISA-layout folder to write.")],
    preset: Annotated[
        Simulation, typer.Option(help="contract: scans from brains; paper: copies of rated scans, with artifacts.")
    ] = Simulation.CONTRACT,
    count: Annotated[int | None, typer.Option(min=1, help="contract: scans to write; default 2000.")] = None,
    prevalence: Annotated[
        Prevalence,
        typer.Option(help="contract: balanced to train on, or artifacts as often as measured on real scans."),
    ] = Prevalence.BALANCED,
    varied: Annotated[bool, typer.Option("--varied", help="contract: as scanners of other kinds show heads.")] = False,
    copies: Annotated[int | None, typer.Option(min=1, help="paper: copies of each scan; default 1.")] = None,
    weighting: Annotated[Weighting | None, typer.Option(help="contract: of every scan; default a mixture.")] = None,
    runs: Annotated[
        Path | None, typer.Option(help="A run's folder: scans of its training subjects alone, or of another --part.")
    ] = None,
    part: Annotated[Part | None, typer.Option(help="Whose scans, of a run's subjects; default train.")] = None,
    seed: int = 1,
    replay: Annotated[
        Path | None, typer.Option(help="Instead: the one scan of this record, the JSON beside it, once more.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; default the cores that this one may use.")
    ] = None,
) -> None:
    """Make scans with known artifacts: from brains without, or from a site's own rated scans."""
    from train.simulate import replay_scan, simulate_corpus
    from train.simulation.copies import replay_copy, simulate_copies
    from train.simulation.replay import is_of_copy, read_record

    of_contract = {
        "--count": count is not None,
        "--prevalence": prevalence is Prevalence.MEASURED,
        "--varied": varied,
        "--weighting": weighting is not None,
    }
    of_paper = {"--copies": copies is not None}
    of_both = {"--runs": runs is not None, "--part": part is not None}
    if part and not runs:
        raise ConfigError("--part is of a run's subjects; name the run by --runs.")
    subjects = subjects_of(read_split(runs), part or TRAIN) if runs else None
    processes = workers or len(os.sched_getaffinity(0))
    if replay:
        _refuse(of_contract | of_paper | of_both, "is no part of --replay, which makes one scan as its record says")
        record, path = read_record(replay), out / replay.with_suffix(".nii.gz").name
        out.mkdir(parents=True, exist_ok=True)
        (replay_copy if is_of_copy(record) else replay_scan)(source, path, record)
    elif preset is Simulation.PAPER:
        _refuse(of_contract, "goes with --preset contract, which makes scans from brains")
        typer.echo(simulate_copies(source, out, seed=seed, copies=copies or 1, workers=processes, subjects=subjects))
    else:
        _refuse(of_paper, "goes with --preset paper, which makes copies of rated scans")
        simulate_corpus(
            *(source, out, count or 2000, seed, processes),
            varied=varied,
            prevalence=prevalence,
            weighting=weighting,
            subjects=subjects,
        )


def _refuse(given: dict[str, bool], why: str) -> None:
    for option, is_given in given.items():
        if is_given:
            raise ConfigError(f"{option} {why}; leave it out.")
