"""What the commands are given: folders of rated scans, the split of a run, and network inputs made from them once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from qcnode.config import Contrast
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import PREPROCESSING
from train.progress import progress

if TYPE_CHECKING:
    from train.config import FitConfig
    from train.dataset import Inputs

Data = Annotated[Path, typer.Option(help="A folder in the LISA layout: images and labels.csv.")]


def _known(contrasts: list[str] | None) -> list[str] | None:
    if unknown := set(contrasts or ()) - {*get_args(Contrast)}:
        raise typer.BadParameter(f"{', '.join(sorted(unknown))} is none of {', '.join(get_args(Contrast))}.")
    return contrasts


Contrasts = Annotated[
    list[str] | None,
    typer.Option(callback=_known, help="Of the scans, which the node grades with these weights; default T2w."),
]
Cache = Annotated[Path | None, typer.Option(help="Where network inputs are kept; default DATA/.inputs.")]
SPLIT = "split.json"


def test_inputs(data: Path, cache: Path | None, runs: Path | None, preprocessing: str) -> Inputs:
    """Those of the run's test subjects, of everybody where there is no run; ConfigError where nobody is left."""
    from train.split import TEST

    if runs is None:
        return inputs_of(data, cache, None, [], preprocessing)
    found = inputs_of(data, cache, read_split(runs), [TEST], preprocessing, copies=False)
    if not found.scans:
        raise ConfigError(
            f"No scan in {data} is of a test subject of {runs}; name the data that the run was made from."
        )
    return found


def inputs_of(
    data: Path,
    cache: Path | None,
    part_of: dict[str, str] | None,
    parts: list[str],
    preprocessing: str = PREPROCESSING,
    *,
    copies: bool = True,
    tasks_of: FitConfig | None = None,
) -> Inputs:
    """The network inputs of the subjects in these parts (of everybody where there is no split)."""
    from train.dataset import cached_input, cached_masks, inputs, read_scans
    from train.sampling.measures import measures_of
    from train.sampling.truth import cached_truths

    scans = [scan for scan in read_scans(data) if part_of is None or part_of.get(scan.subject) in parts]
    scans = [scan for scan in scans if copies or not scan.is_copy]
    folder = cache or data / ".inputs"
    images = [cached_input(scan, folder, preprocessing) for scan in progress(scans, "read")]
    masks = cached_masks(scans, folder, tasks_of) if tasks_of else ()
    measured = [measures_of(scan.record_path) for scan in scans] if tasks_of else ()
    truths = cached_truths(scans, folder, tasks_of) if tasks_of else ()
    return inputs(scans, images, masks, measured, truths)


def read_split(runs: Path) -> dict[str, str]:
    """Which part each subject of a run is in; raises ConfigError."""
    try:
        split: dict[str, str] = json.loads((runs / SPLIT).read_text())
        return split
    except OSError as error:
        raise ConfigError(f"{runs / SPLIT} cannot be read ({error.strerror}); name a run's folder.") from error
