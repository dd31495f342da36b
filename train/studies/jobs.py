"""Independent runs of a comparison: one artifact, configuration and fold; one at a time in a process, anywhere."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from qcnode.artifacts import Artifact
from qcnode.errors import ConfigError
from train.config import FitConfig
from train.dataset import LABELS, cached_input, cached_masks, inputs, read_scans
from train.progress import progress
from train.run import fit_run
from train.sampling.looks import looked_at, looks
from train.split import TEST, subjects_of
from train.studies.counts import refuse_absent
from train.studies.folds import PREDICTIONS, folds, parts, save_predictions, tested

LOOKS = "looks"  # under a study's folder: what its encoders' fixed parts made of the scans


@dataclass(frozen=True)
class Study:
    """What all runs have in common. Paths are the same on every machine that takes part."""

    data: Path
    cache: Path
    out: Path
    folds: int
    repeats: int

    def parts(self, repeat: int, fold: int) -> dict[str, str]:
        """The split of one run; both count from 1."""
        return parts(folds(read_scans(self.data), self.folds, seed=repeat), fold - 1)


@dataclass(frozen=True)
class Job:
    """One run. config: of this artifact alone."""

    artifact: Artifact
    config: FitConfig
    repeat: int
    fold: int

    def folder(self, study: Study) -> Path:
        """Where the run lies: named for what its result depends on, so that tables share runs."""
        settings = [self.config.model_dump(mode="json"), study.folds]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + (study.data / LABELS).read_bytes())
        name = f"{self.config.encoder}-{digest.hexdigest()[:12]}"
        return study.out / "runs" / self.artifact / name / f"repeat-{self.repeat}" / f"fold-{self.fold}"

    def is_done(self, study: Study) -> bool:
        """Whether its predictions are there."""
        return (self.folder(study) / PREDICTIONS).is_file()


def run(job: Job, study: Study) -> None:
    """Fit the job's member and write what it says of its fold's patients; an interrupted run goes on."""
    if job.is_done(study):
        return
    folder, part_of = job.folder(study), study.parts(job.repeat, job.fold)
    scans = read_scans(study.data)
    refuse_absent(scans, part_of, [job.artifact])
    images = [cached_input(scan, study.cache, job.config.preprocessing) for scan in scans]
    everything = inputs(scans, images, cached_masks(scans, study.cache, job.config))
    if looks(job.config.encoder):
        everything = looked_at(job.config.encoder, everything, study.out / LOOKS)
    config = job.config.model_copy(update={"seed": job.config.seed + job.repeat - 1})
    fit_run(config, [job.artifact], everything, part_of, folder)
    found = tested(config, job.artifact, everything, part_of, folder)
    save_predictions({job.artifact: found}, everything.of(subjects_of(part_of, TEST), copies=False), folder)


def run_all(jobs: Sequence[Job], study: Study, *, workers: int, scheduler: str | None) -> None:
    """Run what is not done yet; the first error ends it, and what was done stays."""
    waiting = list({job.folder(study): job for job in jobs if not job.is_done(study)}.values())
    with _executor(workers, scheduler) as executor:
        futures = [executor.submit(run, job, study) for job in waiting]
        try:
            for _, future in zip(progress(futures, "runs"), as_completed(futures), strict=True):
                future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            raise


@contextmanager
def _executor(workers: int, scheduler: str | None) -> Iterator[Executor]:
    """Processes of this machine, or a Dask cluster's."""
    if scheduler is None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError("--scheduler needs Dask; install it with `pip install qcnode[tables]`.") from error
    try:
        client = Client(scheduler)
    except (OSError, ValueError) as error:
        raise ConfigError(f"No Dask scheduler answers at {scheduler}; start one, or leave --scheduler out.") from error
    with client:
        for worker, threads in client.nthreads().items():
            if threads > 1:  # of one process: runs would draw from the same of torch's generators
                raise ConfigError(f"Dask's worker {worker} has {threads} threads; start workers with --nthreads 1.")
        yield client.get_executor()
