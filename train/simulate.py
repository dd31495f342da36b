"""Brains without artifacts → a corpus of scans with known artifacts, in the LISA layout.

The folder holds `LISA_<patient>_run-<n>_LF_<plane>.nii.gz` (a patient number is one subject's), labels.csv,
subjects.csv, and beside each scan a JSON record (the draw, the measured values, the source; it replays the scan), the
brain's mask and the truth: shares of grey and white matter and the logarithm of the shading. Rows are appended in the
order of the runs.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
import multiprocessing
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.errors import ConfigError
from qcnode.imaging.volume import Volume
from train.dataset import subject_name
from train.simulation.acquire import Simulated, apply
from train.simulation.brains import Source, anatomy, phantoms, sources
from train.simulation.contrasts import WEIGHTING_SHARES, WEIGHTINGS, head
from train.simulation.draws import draw, draw_levels
from train.simulation.prevalence import Prevalence, draw_measured_levels
from train.simulation.replay import Record, as_record, replayed
from train.simulation.scans import clean_scan
from train.simulation.severity import CONTRACT, OutOfContract

log = logging.getLogger(__name__)

PHANTOMS = 24
KIND_SHARES = {"labelmap": 0.42, "adult": 0.30, "child": 0.20, "phantom": 0.08}
ADULT_LENGTH_MM = 175.0  # of the brain, front to back; heads are .65 to 1.05 of it
TRUTH_STEPS = 1000  # of a share, or of the logarithm of a shading, to 1 in a file
_ATTEMPTS = 200

# Of scans that are varied, as (low, high); T2w's fluid in times of the usual.
_FLUID, _BLUR_VOXELS, _CONTRAST, _QUIET = (0.9, 2.0), (0.1, 0.7), (0.2, 0.4), (0.003, 0.049)


def simulate_corpus(
    brains_folder: Path,
    out: Path,
    count: int,
    seed: int,
    workers: int = 1,
    *,
    varied: bool = False,
    prevalence: Prevalence = Prevalence.BALANCED,
    weighting: str | None = None,
    subjects: Collection[str] | None = None,
) -> None:
    """Write scans 1 … count into `out`; those that are already there stay, so a corpus can be continued or grown.

    varied: the scans that are made now are as other scanners than the usual one would show the heads. prevalence: how
    often these scans have artifacts. weighting: of all of them; None: mixed. subjects: whose heads, as the files are
    named; None: everybody's. workers: processes; they change nothing that is written.
    Raises ConfigError where none of the subjects is among the brains.
    """
    found = sources(brains_folder) + phantoms(PHANTOMS)
    if subjects is not None and not (found := [its for its in found if subject_name(its.patient) in subjects]):
        raise ConfigError(f"None of the run's subjects is in {brains_folder}; name the folder of their scans.")
    out.mkdir(parents=True, exist_ok=True)
    _write_subjects(out / "subjects.csv", found)
    done = _runs_in(out / "labels.csv")
    runs = [run for run in range(1, count + 1) if run not in done]
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with (
        (out / "labels.csv").open("a", newline="") as file,
        ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        rows = csv.writer(file)
        if not done and file.tell() == 0:
            rows.writerow(["filename", *(artifact.value for artifact in Artifact)])
        one = partial(write_scan, found, out, seed, varied=varied, prevalence=prevalence, weighting=weighting)
        futures = [pool.submit(one, run) for run in runs]
        for number, future in enumerate(futures, start=1):
            try:
                name, labels = future.result()
            except OutOfContract as reason:
                log.warning('scan_left_out reason="%s"', reason)
                continue
            rows.writerow([name, *labels])
            file.flush()
            if number % 50 == 0 or number == len(runs):
                log.info("scans_simulated done=%d of=%d", number, len(runs))


def write_scan(
    found: Sequence[Source],
    out: Path,
    seed: int,
    run: int,
    *,
    varied: bool = False,
    prevalence: Prevalence = Prevalence.BALANCED,
    weighting: str | None = None,
) -> tuple[str, list[int]]:
    """Simulate one run and write it with its record; returns its file name and labels."""
    simulated, record = simulate_scan(found, seed, run, varied=varied, prevalence=prevalence, weighting=weighting)
    plane = Plane(record["plane"])
    name = f"{subject_name(record['patient'])}_run-{run:05d}_LF_{plane.suffix}.nii.gz"
    _write_files(out / name, simulated, record)
    return name, [int(simulated.labels[artifact]) for artifact in Artifact]


def replay_scan(brains_folder: Path, path: Path, record: Record) -> None:
    """Write the scan of a record, and what lies beside it, once more; raises ConfigError where its brain is missing."""
    torch.set_num_threads(1)  # as in the processes that wrote it
    _write_files(path, replayed(sources(brains_folder) + phantoms(PHANTOMS), record), record)


def simulate_scan(
    found: Sequence[Source],
    seed: int,
    run: int,
    *,
    varied: bool = False,
    prevalence: Prevalence = Prevalence.BALANCED,
    weighting: str | None = None,
) -> tuple[Simulated, Record]:
    """The scan of this seed and run number, always the same, and its record.

    Severities are drawn once; head, pose and parameters are drawn again until every severity is true in the image, so
    that a severity that is hard to reach does not become rare.
    varied: fluid may be brighter, the image sharper, its own contrast higher and its noise less than usual.
    prevalence: measured draws the plane first and keeps it, as artifacts differ by plane.
    weighting: one of WEIGHTINGS; None: any, by WEIGHTING_SHARES.
    """
    generator = np.random.default_rng([seed, run])
    shares = WEIGHTING_SHARES if weighting is None else [its == weighting for its in WEIGHTINGS]
    planes = list(Plane)
    if prevalence is Prevalence.MEASURED:
        planes = [planes[generator.integers(len(planes))]]
        levels = draw_measured_levels(generator, planes[0])
    else:
        levels = draw_levels(generator)
    for attempt in range(1, _ATTEMPTS + 1):
        source = choose(found, generator)
        plane = planes[generator.integers(len(planes))]
        its_weighting = str(generator.choice(WEIGHTINGS, p=shares))
        length_mm = ADULT_LENGTH_MM * float(generator.uniform(0.65, 1.05))
        fluid = float(generator.uniform(*_FLUID)) if varied else 1.0
        head_generator = generator.bit_generator.state
        scan = clean_scan(head(anatomy(source), its_weighting, length_mm, generator, fluid=fluid), plane, generator)
        drawn = draw(generator, levels)
        if varied:
            blur, contrast = (float(generator.uniform(*between)) for between in (_BLUR_VOXELS, _CONTRAST))
            scan = replace(scan, blur_voxels=blur, contrast=contrast)
        if varied and levels[Artifact.NOISE] is Severity.NONE:
            drawn = replace(drawn, noise_sigma=float(generator.uniform(*_QUIET)))
        gain = float(generator.uniform(300, 900))
        try:
            simulated = apply(scan, drawn)
        except OutOfContract as reason:
            log.debug("draw_rejected run=%d reason=%s", run, reason)
            continue
        record: Record = {
            "contract": CONTRACT,
            "seed": seed,
            "run": run,
            "varied": varied,
            "prevalence": prevalence.value,
            "attempt": attempt,
            "patient": source.patient,
            "subject": source.subject,
            "kind": source.kind,
            "source": source.path.name if source.path else None,
            "plane": plane.value,
            "weighting": its_weighting,
            "brain_length_mm": length_mm,
            "fluid": fluid,
            "head_generator": head_generator,
            **as_record(scan),
            "gain": gain,
            "measured": simulated.measured,
            "draw": drawn.to_json(),
        }
        return simulated, record
    raise OutOfContract(f"run {run} found no scan of its severities in {_ATTEMPTS} draws; leave it out")


def choose(found: Sequence[Source], generator: np.random.Generator) -> Source:
    """A kind by its share, then one of its subjects, then one of the subject's files."""
    kinds = [kind for kind in KIND_SHARES if any(source.kind == kind for source in found)]
    shares = np.array([KIND_SHARES[kind] for kind in kinds])
    kind = str(generator.choice(kinds, p=shares / shares.sum()))
    patients = sorted({source.patient for source in found if source.kind == kind})
    patient = patients[generator.integers(len(patients))]
    files = [source for source in found if source.patient == patient]
    return files[generator.integers(len(files))]


def _write_files(path: Path, simulated: Simulated, record: Record) -> None:
    """The scan, its mask, its truth and its record."""
    _write_nifti(path, simulated.volume, record["gain"])
    mask = Volume(simulated.brain.astype(np.float32), simulated.volume.affine)
    _write_nifti(path.with_name(path.name.replace(".nii.gz", "_mask.nii.gz")), mask, 1)
    truth = Volume(np.moveaxis(simulated.truth, 0, -1), simulated.volume.affine)
    _write_nifti(path.with_name(path.name.replace(".nii.gz", "_truth.nii.gz")), truth, TRUTH_STEPS)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(record))


def _write_nifti(path: Path, volume: Volume, gain: float) -> None:
    """int16 in LISA's (x, y, z) order of axes; compression level 1, which is three times faster."""
    image = nib.Nifti1Image(np.rint(volume.array * gain).clip(-32768, 32767).astype(np.int16), volume.affine)
    image = nib.as_closest_canonical(image)
    image.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _write_subjects(path: Path, found: Sequence[Source]) -> None:
    """A row of each subject, beside those of scans that are there already."""
    subjects: dict[str, list[str]] = {}
    if path.exists():
        with path.open(newline="") as file:
            subjects = {row[0]: row for row in list(csv.reader(file))[1:]}
    for patient in {source.patient for source in found}:
        files = [source for source in found if source.patient == patient]
        names = " ".join(source.path.name for source in files if source.path)
        subjects[subject_name(patient)] = [subject_name(patient), files[0].kind, files[0].subject, names]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["subject", "kind", "source", "files"], *sorted(subjects.values())])


def _runs_in(labels: Path) -> set[int]:
    if not labels.exists():
        return set()
    with labels.open(newline="") as file:
        return {int(row["filename"].split("_run-")[1].split("_")[0]) for row in csv.DictReader(file)}
