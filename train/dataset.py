"""A folder in the LISA layout → scans with their labels, and their network inputs, made once."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.errors import ConfigError, QcnodeError
from qcnode.imaging.preprocess import INPUT_SHAPES, PREPROCESSING, network_input, placed
from qcnode.imaging.volume import volume_from_nifti
from train.config import FitConfig
from train.sampling.fading import Tissues
from train.sampling.fields import Fields

LABELS = "labels.csv"
SUBJECTS = "subjects.csv"
_NAME = re.compile(r"(?P<subject>[A-Za-z]+(?:_[A-Za-z]+)*_\d+)_(?:.*_)?(?P<plane>axi|cor|sag)\.nii(?:\.gz)?")


@dataclass(frozen=True)
class Scan:
    """One rated scan. `labels` are severities in the order of Artifact.

    row: its line in labels.csv, the header's being 1; None for a scan that was not read from there.
    """

    path: Path
    subject: str
    plane: Plane
    labels: tuple[int, ...]
    row: int | None = field(default=None, compare=False)

    @property
    def is_copy(self) -> bool:
        """Whether artifacts were drawn onto another scan to make it: it is trained on, and never measured on."""
        return "_copy-" in self.path.name

    @property
    def where(self) -> str:
        """How an error about the scan begins: the table and the row that lists it."""
        return "" if self.row is None else f"{self.path.parent / LABELS} row {self.row}: "

    @property
    def mask_path(self) -> Path:
        """Where the scan's brain mask is, if it has one: `…_LF_axi_mask.nii.gz`."""
        return self.path.with_name(f"{self.path.name.split('.')[0]}_mask.nii.gz")

    @property
    def truth_path(self) -> Path:
        """Where the shares of tissues and the shading that it was simulated with are: `…_LF_axi_truth.nii.gz`."""
        return self.path.with_name(f"{self.path.name.split('.')[0]}_truth.nii.gz")

    @property
    def record_path(self) -> Path:
        """Where what was measured on the scan is, if it was simulated: `…_LF_axi.json`."""
        return self.path.with_name(f"{self.path.name.split('.')[0]}.json")

    def copy_name(self, number: int) -> str:
        """The file name of a copy of it, by which it is of the same subject and plane; always compressed."""
        start = self.path.name.rindex(self.plane.suffix)
        return f"{self.path.name[:start]}copy-{number}_{self.plane.suffix}.nii.gz"


def subject_name(patient: int) -> str:
    """How file names call the subject of this number."""
    return f"LISA_{patient:04d}"


def read_scans(folder: Path) -> list[Scan]:
    """The scans that the folder's labels.csv lists; raises ConfigError that names the row and what to do."""
    table = folder / LABELS
    rows = _rows(table, ("filename", *Artifact))
    if not rows:
        raise ConfigError(f"{table} has no rows; write one for each image.")
    first: dict[str, int] = {}
    for number, row in rows:
        if first.setdefault(row["filename"], number) != number:
            raise ConfigError(
                f"{table} row {number}: {row['filename']} is in row {first[row['filename']]} already; "
                "take one of the two out."
            )
    return [_scan(folder, row, number) for number, row in rows]


def _rows(table: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV file, each after its line, the header's being 1; a cell that a row lacks is empty.

    Raises ConfigError for a file that cannot be read, is not UTF-8 or lacks one of the columns.
    """
    try:
        text = table.read_bytes().decode("utf-8-sig")  # with the mark that spreadsheets begin it with, or without
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
        rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise ConfigError(f"{table} cannot be read ({error.strerror}); name a folder in the LISA layout.") from error
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{table} row {number} is not UTF-8; save the table as CSV in UTF-8.") from error
    except csv.Error as error:
        raise ConfigError(f"{table} row {reader.line_num + 1} is not CSV ({error}); save the table as CSV.") from error
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"{table} row 1 has no column {missing[0]}; the columns are {', '.join(columns)}.")
    return rows


def _scan(folder: Path, row: dict[str, str], number: int) -> Scan:
    name, where = row["filename"], f"{folder / LABELS} row {number}"
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(f'{where}: "{name}" does not name a patient and a plane (axi, cor, sag); rename the image.')
    if not (folder / name).is_file():
        raise ConfigError(f"{where}: {folder / name} is missing; add the image or take the row out.")
    for artifact in Artifact:
        if row[artifact] not in {str(int(severity)) for severity in Severity}:
            raise ConfigError(f'{where} ({name}): {artifact} is "{row[artifact]}"; write 0, 1 or 2.')
    plane = next(plane for plane in Plane if plane.suffix == match["plane"])
    labels = tuple(int(row[artifact]) for artifact in Artifact)
    return Scan(folder / name, match["subject"], plane, labels, number)


def found_scans(folder: Path) -> list[Scan]:
    """The scans in the folder by their names, rated or not; their labels are left empty, and copies are left out."""
    matches = [(path, match) for path in sorted(folder.glob("*.nii*")) if (match := _NAME.fullmatch(path.name))]
    planes = {plane.suffix: plane for plane in Plane}
    scans = [Scan(path, match["subject"], planes[match["plane"]], ()) for path, match in matches]
    if not scans:
        raise ConfigError(f"{folder} holds no scan whose name says a patient and a plane (LISA_0001_LF_axi.nii.gz).")
    return [scan for scan in scans if not scan.is_copy]


def subject_kinds(folder: Path, scans: Iterable[Scan]) -> dict[str, str]:
    """Each subject's kind, after which a split is balanced: subjects.csv's where the folder has one, else none.

    Subjects of that table without a scan count too, so that the split of a corpus is the same while it grows.
    Raises ConfigError that names the row where the table cannot be used.
    """
    kinds = dict.fromkeys((scan.subject for scan in scans), "")
    if (folder / SUBJECTS).is_file():
        kinds |= {row["subject"]: row["kind"] for _, row in _rows(folder / SUBJECTS, ("subject", "kind"))}
    return kinds


def cached_input(scan: Scan, cache: Path, preprocessing: str = PREPROCESSING) -> NDArray[np.float16]:
    """The scan's network input, mapped from the cache; made first where it is not there, or older than the image."""

    def made() -> NDArray[np.float16]:
        return network_input(volume_from_nifti(scan.path), preprocessing).astype(np.float16)

    mapped: NDArray[np.float16] = cached(scan.path, cache, preprocessing, made, where=scan.where)
    return mapped


def cached_mask(scan: Scan, cache: Path, preprocessing: str = PREPROCESSING) -> NDArray[np.uint8] | None:
    """The scan's brain mask on the network input's grid, 255 being brain, mapped from the cache; None if it has none.

    Every value but zero is brain in the file: a label map does as well. Raises ConfigError for one of another grid.
    """

    def made() -> NDArray[np.uint8]:
        image, mask = volume_from_nifti(scan.path), volume_from_nifti(scan.mask_path)
        if image.array.shape != mask.array.shape or not np.allclose(image.affine, mask.affine, atol=1e-2):
            raise ConfigError(f"its voxels are not those of {scan.path.name}; resample it, or take it away.")
        brain = replace(mask, array=(mask.array != 0).astype(np.float32))
        return np.rint(255 * placed(brain, preprocessing)).clip(0, 255).astype(np.uint8)

    if not scan.mask_path.is_file():
        return None
    mapped: NDArray[np.uint8] = cached(scan.mask_path, cache, preprocessing, made, where=scan.where)
    return mapped


def cached_masks(scans: Sequence[Scan], cache: Path, config: FitConfig) -> list[NDArray[np.uint8] | None]:
    """Every scan's mask, or none at all where the configuration asks for none."""
    weights = (config.of(artifact).mask_weight for artifact in Artifact)
    return [cached_mask(scan, cache, config.preprocessing) for scan in scans] if any(weights) else []


def cached(
    source: Path,
    cache: Path,
    preprocessing: str,
    made: Callable[[], NDArray[Any]],
    shape: tuple[int, ...] | None = None,
    where: str = "",
) -> NDArray[Any]:
    """What is made of a file, mapped from the cache; made first where it is not there, or older than the file.

    shape: what it has to have; None: a network input's. where: the file is listed, for the error about one of no use.
    """
    path = cache / preprocessing / f"{source.name.split('.')[0]}.npy"
    if not path.is_file() or path.stat().st_mtime < source.stat().st_mtime:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            array = made()
        except QcnodeError as error:
            raise ConfigError(f"{where}{source} cannot be used: {error}") from error
        partial = path.with_suffix(f".{os.getpid()}")  # another run may make the same one
        with partial.open("wb") as file:
            np.save(file, array)
        partial.replace(path)
    mapped: NDArray[Any] = np.load(path, mmap_mode="r")
    if mapped.shape != (shape or INPUT_SHAPES[preprocessing]):
        raise ConfigError(f"{path} is not a network input; delete the folder {cache}.")
    return mapped


@dataclass(frozen=True)
class Inputs:
    """Scans beside their network inputs and labels; `labels` is (scan, artifact), `planes` (scan,).

    images: or blocks (train/simulation/renders.py), or what an encoder's fixed part made of them
    (train/sampling/looks.py). masks: of the brain, on the inputs' grid, None where a scan has none; empty where nothing
    asks for them. truths: of tissues and shading (train/sampling/truth.py), likewise. measured, fields: what is known
    of each scan beside its labels (train/sampling/measures.py, train/sampling/fields.py); empty where nothing asks.
    """

    scans: Sequence[Scan]
    images: Sequence[NDArray[np.float16]]
    labels: NDArray[np.int64]
    planes: NDArray[np.int64]
    masks: Sequence[NDArray[np.uint8] | None] = ()
    measured: Sequence[Mapping[str, float]] = ()
    fields: Sequence[Fields | None] = ()
    truths: Sequence[Tissues | None] = ()

    def of(self, subjects: Iterable[str], *, copies: bool = True) -> Inputs:
        """Only the scans of these subjects. copies: those that were made from other scans among them."""
        wanted = set(subjects)
        keep = [i for i, scan in enumerate(self.scans) if scan.subject in wanted and (copies or not scan.is_copy)]
        images = [self.images[index] for index in keep]
        scans, masks = [self.scans[index] for index in keep], [self.masks[index] for index in keep if self.masks]
        measured = [self.measured[index] for index in keep if self.measured]
        fields = [self.fields[index] for index in keep if self.fields]
        truths = [self.truths[index] for index in keep if self.truths]
        return Inputs(scans, images, self.labels[keep], self.planes[keep], masks, measured, fields, truths)

    def with_more(self, more: Inputs) -> Inputs:
        """These scans and then those, without masks and truths."""
        measured = [*(self.measured or [{}] * len(self.scans)), *(more.measured or [{}] * len(more.scans))]
        labels, planes = np.concatenate([self.labels, more.labels]), np.concatenate([self.planes, more.planes])
        fields = [*(self.fields or [None] * len(self.scans)), *(more.fields or [None] * len(more.scans))]
        return Inputs([*self.scans, *more.scans], [*self.images, *more.images], labels, planes, (), measured, fields)


def inputs(
    scans: Sequence[Scan],
    images: Sequence[NDArray[np.float16]],
    masks: Sequence[NDArray[np.uint8] | None] = (),
    measured: Sequence[Mapping[str, float]] = (),
    truths: Sequence[Tissues | None] = (),
) -> Inputs:
    """The scans and their network inputs as arrays."""
    labels = np.array([scan.labels for scan in scans], np.int64).reshape(-1, len(Artifact))
    planes = np.array([list(Plane).index(scan.plane) for scan in scans], np.int64)
    return Inputs(scans, images, labels, planes, masks, measured, truths=truths)
