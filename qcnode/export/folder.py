"""The exported folder, as `python -m train` reads it.

    QCNODE_482910375526_0c9d1f22ab7e_LF_axi.nii.gz    the scan: patient, scan, plane
    ratings/<the same>.json                           who says what of it; written before the scan
    labels.csv  ratings.csv  agreement.csv            made of those at the end of each export
    README.txt  export.json                           what this is, what was taken out, and what was not

A file has its name only once it is whole, so an export that was broken off goes on where it was; scans that are there
stay as they are, and only what people say of them is brought up to date.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from qcnode import __version__
from qcnode.agreement import kappa_or_none, same_share
from qcnode.artifacts import Artifact
from qcnode.errors import ConfigError
from qcnode.intake.spool import write_durably

LABELS, RATINGS, AGREEMENT, ABOUT, README, RECORDS = (
    *("labels.csv", "ratings.csv", "agreement.csv"),
    *("export.json", "README.txt", "ratings"),
)
Record = dict[str, Any]

_README = """\
Brain MRI with what people say of its artifacts, exported by qcnode {version}.

FACES ARE NOT REMOVED. Whoever has these images can render a face from them. Treat them as patient data.

labels.csv      filename and one severity an artifact: 0 none, 1 moderate, 2 severe. `python -m train fit --data .`
                takes it as it is. Where several people graded a scan, it has the middle grade; between two, the worse.
ratings.csv     what each person said. `revision`: of the verdict they spoke of. `corrected`: the artifacts whose grade
                they changed; the others they saw, and left as the machine had graded them.
agreement.csv   how far two people agree who graded the same scans: the share of equal grades, and quadratic kappa. The
                row of "*" and "*" is all pairs together. They had seen the machine's grades, so their grades are not
                independent of them, or of each other.
ratings/        all that is known of each scan, with the machine's grades, which are no labels.
export.json     how this was made.

What was taken out: everything of the DICOM header but the place of the voxels. Patients, studies, series and scanners
have other names, made with a key that only the node has; the same patient has the same one in each of its exports.
Dates are shifted into the past, by as many days for all scans of a patient, which only the key tells; there is no time
of day. The people who graded are named by their user names.
"""


@contextmanager
def held(folder: Path, only: str, key: str) -> Iterator[None]:
    """Hold the folder for one export; ConfigError for one that is in use, or holds something else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); give another folder.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _check(folder, only, key)
        for partial in [*folder.glob(".*.partial"), *(folder / RECORDS).glob(".*.partial")]:
            partial.unlink()  # of an export that was broken off
        yield
    except BlockingIOError as error:
        raise ConfigError(f"Another export is at work in {folder}; wait for its end.") from error
    finally:
        os.close(descriptor)


def records(folder: Path) -> dict[str, Record]:
    """What is known of each scan that is here, by its name; a record without an image is left out."""
    found: dict[str, Record] = {}
    for path in sorted((folder / RECORDS).glob("*.json")):
        record: Record = json.loads(path.read_bytes())
        if (folder / record["filename"]).is_file():
            found[record["scan"]] = record
    return found


def write_record(folder: Path, record: Record) -> None:
    """Put it in place, unless it is there and the same."""
    path = folder / RECORDS / f"{record['filename'].split('.')[0]}.json"
    data = f"{json.dumps(record, indent=1)}\n".encode()
    if not path.is_file() or path.read_bytes() != data:
        write_durably(path, data)


def write_tables(folder: Path, known: Iterable[Record]) -> None:
    """Make the tables of all records anew."""
    rated = sorted((record for record in known if record["labels"]), key=lambda record: str(record["filename"]))
    labels = [[record["filename"], *_in_order(record["labels"])] for record in rated]
    _write_csv(folder / LABELS, ["filename", *Artifact], labels)
    ratings = [
        [
            *(record["filename"], record["subject"]),
            *(said["rater"], said["revision"], " ".join(said["corrected"])),
            *_in_order(said["grades"]),
        ]
        for record in rated
        for said in record["ratings"]
    ]
    _write_csv(folder / RATINGS, ["filename", "subject", "rater", "revision", "corrected", *Artifact], ratings)
    columns = ["artifact", "rater", "other", "scans", "same", "quadratic_kappa"]
    _write_csv(folder / AGREEMENT, columns, _agreement(rated))


def _agreement(rated: Iterable[Record]) -> Iterator[list[Any]]:
    """For each artifact all pairs of people together, then each pair of people that graded the same scans."""
    pairs: dict[tuple[str, str], list[tuple[list[int], list[int]]]] = {}
    for record in rated:
        by_name = sorted((said["rater"], _in_order(said["grades"])) for said in record["ratings"])
        for (one, its), (other, theirs) in combinations(by_name, 2):
            pairs.setdefault(("*", "*"), []).extend([(its, theirs), (theirs, its)])  # neither of them is the first
            pairs.setdefault((one, other), []).append((its, theirs))
    for index, artifact in enumerate(Artifact):
        for (one, other), graded in sorted(pairs.items()):
            its, theirs = np.array(graded, np.int64)[:, :, index].T
            kappa = kappa_or_none(its, theirs)
            scans = len(graded) // 2 if one == "*" else len(graded)
            words = [f"{same_share(its, theirs):.4f}", "" if kappa is None else f"{kappa:.4f}"]
            yield [artifact, one, other, scans, *words]


def _in_order(grades: dict[str, int]) -> list[int]:
    return [grades[artifact] for artifact in Artifact]


def _check(folder: Path, only: str, key: str) -> None:
    """Begin the folder, or see that it was begun in the same way."""
    about = folder / ABOUT
    if not about.is_file():
        if any(path for path in folder.iterdir() if not path.name.startswith(".")):
            raise ConfigError(f"{folder} holds other files; give an empty folder, or that of an earlier export.")
        said = {
            "made_by": f"qcnode {__version__}",
            "only": only,
            "key": key,
            "faces": "not removed",
            "uids": "replaced, by HMAC-SHA256 with the key of the node",
            "dates": "shifted into the past, all of a patient's by as many days, by the same",
            "patients": "replaced, by HMAC-SHA256 with the key of the node",
            "raters": "user names, as they are",
        }
        write_durably(folder / README, _README.format(version=__version__).encode())
        write_durably(about, f"{json.dumps(said, indent=1)}\n".encode())
        return
    said = json.loads(about.read_bytes())
    if said["key"] != key:
        raise ConfigError(f"{folder} was exported with another key, so patients have other names; give another folder.")
    if said["only"] != only:
        raise ConfigError(f"{folder} was exported with --only {said['only']}; do the same, or give another folder.")


def _write_csv(path: Path, columns: list[str], rows: Iterable[list[Any]]) -> None:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_durably(path, text.getvalue().encode())
