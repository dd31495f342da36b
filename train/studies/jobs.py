"""Independent runs of a comparison: one artifact, configuration and fold; one at a time in a process, anywhere."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from qcnode.artifacts import Artifact
from qcnode.errors import ConfigError, TransientError
from train.config import FitConfig
from train.dataset import LABELS, cached_input, cached_masks, inputs, read_scans
from train.progress import progress
from train.run import fit_run
from train.sampling.looks import looked_at, looks
from train.split import TEST, subjects_of
from train.studies.counts import refuse_absent
from train.studies.folds import PREDICTIONS, folds, parts, save_predictions, tested

log = logging.getLogger(__name__)
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

    def refuse_absent(self, artifacts: Sequence[Artifact]) -> None:
        """Raise ConfigError where a run would fail: before hours are spent on those before it.

        That is for more folds than patients, and for a severity that no training scan of some fold has.
        """
        scans = read_scans(self.data)
        for repeat in range(1, self.repeats + 1):
            fold_of = folds(scans, self.folds, seed=repeat)
            for fold in range(self.folds):
                try:
                    refuse_absent(scans, parts(fold_of, fold), artifacts)
                except ConfigError as error:
                    raise ConfigError(f"Repeat {repeat}, fold {fold + 1} of {self.folds}: {error}") from error


@dataclass(frozen=True)
class Job:
    """One run. config: of this artifact alone."""

    artifact: Artifact
    config: FitConfig
    repeat: int
    fold: int

    def __str__(self) -> str:
        return f"{self.artifact} with {self.config.encoder}, repeat {self.repeat}, fold {self.fold}"

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
    scans = read_scans(study.data)  # first: the machine of another worker may not see the folder, and says so
    if job.is_done(study):
        return
    folder, part_of = job.folder(study), study.parts(job.repeat, job.fold)
    images = [cached_input(scan, study.cache, job.config.preprocessing) for scan in scans]
    everything = inputs(scans, images, cached_masks(scans, study.cache, job.config))
    if looks(job.config.encoder):
        everything = looked_at(job.config.encoder, everything, study.out / LOOKS)
    config = job.config.model_copy(update={"seed": job.config.seed + job.repeat - 1})
    fit_run(config, [job.artifact], everything, part_of, folder)
    found = tested(config, job.artifact, everything, part_of, folder)
    save_predictions({job.artifact: found}, everything.of(subjects_of(part_of, TEST), copies=False), folder)


def run_all(jobs: Sequence[Job], study: Study, *, workers: int, scheduler: str | None) -> None:
    """Run what is not done yet; the first error ends it, and what was done stays.

    Raises ConfigError that names the run, TransientError where its process or the cluster was lost.
    """
    waiting = list({job.folder(study): job for job in jobs if not job.is_done(study)}.values())
    with _executor(workers, scheduler) as executor:
        job_of = {executor.submit(run, job, study): job for job in waiting}
        try:
            for _, future in zip(progress(waiting, "runs"), as_completed(job_of), strict=True):
                future.result()
        except ConfigError as error:
            place = ", on a Dask worker" if scheduler else ""
            raise ConfigError(f"{job_of[future]}{place}: {error}") from error
        finally:
            for each in job_of:
                each.cancel()


@contextmanager
def _executor(workers: int, scheduler: str | None) -> Iterator[Executor]:
    """Processes of this machine, or a Dask cluster's; TransientError where one that computed was lost."""
    again = "give the command again: it goes on from what is there."
    if scheduler is None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                yield pool
            except BrokenExecutor as error:
                raise TransientError(
                    f"A run's process was killed, perhaps for want of memory; set fewer --workers and {again}"
                ) from error
        return
    try:
        from distributed import Client, KilledWorker
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
        if not client.nthreads():
            log.warning('no_worker_yet scheduler=%s remedy="dask worker %s --nthreads 1"', scheduler, scheduler)
        try:
            yield client.get_executor()
        except (KilledWorker, CancelledError) as error:
            raise TransientError(
                f"A worker of the Dask cluster at {scheduler}, or all of it, was killed, perhaps for want of memory;"
                f" see its log and {again}"
            ) from error
