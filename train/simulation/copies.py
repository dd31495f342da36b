"""Rated scans → the same scans and, beside each, copies with artifacts drawn onto them, in the LISA layout.

A copy is called `…_LF_copy-1_axi.nii.gz` after its scan, so that it is of the same patient; a JSON record beside it has
its scan, the draw, and what the draw changed. An artifact is drawn only onto scans without it: how severe the two are
together nobody could say, as when a shift centres a head that was off.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
import multiprocessing
import shutil
import zlib
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from qcnode.artifacts import Artifact
from qcnode.errors import ConfigError
from train.dataset import LABELS, SUBJECTS, Scan, read_scans
from train.progress import progress
from train.simulation.appearance import Affine, AppearanceDraw, Image, applied, draw, draw_levels, is_true
from train.simulation.replay import Record, refuse_another
from train.simulation.severity import OutOfContract
from train.studies.counts import counts_by_severity

log = logging.getLogger(__name__)
_ATTEMPTS = 40


def simulate_copies(
    folder: Path,
    out: Path,
    *,
    seed: int,
    copies: int = 1,
    workers: int = 1,
    subjects: Collection[str] | None = None,
) -> str:
    """Write the folder's scans and `copies` of each into `out`; copies that are there already stay.

    subjects: only their scans are copied; None: everybody's. workers: processes; they change nothing that is written.
    Returns how many scans of each severity there were before and are after, as a Markdown table; raises ConfigError
    where `out` is in the folder, where the folder has copies, and where it has no scan of the subjects.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{out} is in {folder}, whose scans are copied; name a folder beside it.")
    scans = read_scans(folder)
    for scan in scans:
        if scan.is_copy:
            raise ConfigError(f"{scan.path} is a copy itself; name the folder of scans that it was made from.")
    wanted = [copies if subjects is None or scan.subject in subjects else 0 for scan in scans]
    if not any(wanted):
        raise ConfigError(f"No scan in {folder} is of a subject to copy; name the data that the run was made from.")
    out.mkdir(parents=True, exist_ok=True)
    if (folder / SUBJECTS).is_file():
        shutil.copyfile(folder / SUBJECTS, out / SUBJECTS)
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    one = partial(_with_copies, out=out, seed=seed)
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rows = [row for rows in pool.map(one, progress(scans, "simulate"), wanted) for row in rows]
    partial_table = out / f"{LABELS}.partial"
    with partial_table.open("w", newline="") as file:
        csv.writer(file).writerows([["filename", *(artifact.value for artifact in Artifact)], *rows])
    partial_table.replace(out / LABELS)
    return _before_and_after(scans, read_scans(out))


def write_copy(scan: Scan, out: Path, *, seed: int, number: int) -> tuple[str, list[int]]:
    """The scan with a draw on it, always the same for a seed and number; returns its file's name and labels.

    Severities are drawn once, their parameters until every one is true in the image; raises OutOfContract where none
    are, as when the scan's own artifacts drown them, and for a scan that has every artifact already.
    """
    name = scan.copy_name(number)
    record_path = out / name.replace(".nii.gz", ".json")
    if all(scan.labels):
        raise OutOfContract(f"{scan.path.name}: it has every artifact already; leave its copies out")
    labelled = list(zip(Artifact, scan.labels, strict=True))
    generator = np.random.default_rng([seed, number, zlib.crc32(scan.path.name.encode())])
    levels = draw_levels(generator, [artifact for artifact, label in labelled if label == 0])
    labels = [label or int(levels[artifact]) for artifact, label in labelled]
    made_from = {"preset": "paper", "scan": scan.path.name, "seed": seed, "number": number, "labels": labels}
    if (out / name).is_file() and record_path.is_file():
        if made_from.items() <= json.loads(record_path.read_text()).items():
            return name, labels
        record_path.unlink()  # before its image is replaced: a record is always of the image beside it
    image, affine = _image(scan.path)
    for _ in range(_ATTEMPTS):
        drawn = draw(generator, levels)
        changed, effects = applied(image, affine, drawn)
        if is_true(drawn, effects):
            break
    else:
        raise OutOfContract(f"{scan.path.name}: what was drawn cannot be seen in it; leave this copy out")
    _write_copy(out / name, changed, affine, made_from | {"effects": effects, "draw": drawn.to_json()})
    return name, labels


def replay_copy(folder: Path, path: Path, record: Record) -> None:
    """Write the copy of a record, and the record, once more; its scan is in the folder.

    Raises ConfigError where it is not there, and where the draw does not do to it what the record says.
    """
    if not (folder / record["scan"]).is_file():
        raise ConfigError(f"{folder / record['scan']} is missing; name the folder of scans that were copied.")
    image, affine = _image(folder / record["scan"])
    changed, effects = applied(image, affine, AppearanceDraw.from_json(record["draw"]))
    refuse_another(effects, record["effects"])
    _write_copy(path, changed, affine, record)


def _image(path: Path) -> tuple[Image, Affine]:
    """A scan's voxels (x, y, z) and their affine."""
    source = nib.as_closest_canonical(nib.load(path))
    return np.maximum(np.asarray(source.dataobj, np.float32), 0), source.affine


def _write_copy(path: Path, image: Image, affine: Affine, record: Record) -> None:
    _write(path, gzip.compress(nib.Nifti1Image(image, affine).to_bytes(), 1, mtime=0))
    _write(path.with_name(path.name.replace(".nii.gz", ".json")), json.dumps(record).encode())


def _write(path: Path, content: bytes) -> None:
    """Write the file, whole or not at all."""
    partial_file = path.with_name(f"{path.name}.partial")
    partial_file.write_bytes(content)
    partial_file.replace(path)


def _with_copies(scan: Scan, copies: int, *, out: Path, seed: int) -> list[list[str | int]]:
    """The scan and its copies, written; their rows in the table."""
    for source in (scan.path, scan.mask_path):
        there = out / source.name
        if source.is_file() and not (there.is_file() and there.read_bytes() == source.read_bytes()):
            _write(there, source.read_bytes())
    rows: list[list[str | int]] = [[scan.path.name, *scan.labels]]
    for number in range(1, copies + 1):
        try:
            name, labels = write_copy(scan, out, seed=seed, number=number)
        except OutOfContract as reason:
            log.warning('copy_left_out reason="%s"', reason)
            continue
        rows.append([name, *labels])
    return rows


def _before_and_after(before: Sequence[Scan], after: Sequence[Scan]) -> str:
    rows = [f"| scans 0 / 1 / 2 | before ({len(before)}) | after ({len(after)}) |", "|---|---|---|"]
    for artifact in Artifact:
        counts = (" / ".join(map(str, counts_by_severity(scans, artifact))) for scans in (before, after))
        rows.append(f"| {artifact} | {' | '.join(counts)} |")
    return "\n".join(rows)
