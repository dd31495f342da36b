"""Files and folders → scans, each graded without a node."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import dcmread

from qcnode.assess import Grader, assess, assess_volume
from qcnode.config import Eligibility
from qcnode.errors import ConfigError, Excluded, NotAssessable
from qcnode.imaging.stack import UNREADABLE
from qcnode.verdict import DEFAULT_POLICY, Assessment, Policy, not_assessable

NIFTI = (".nii", ".nii.gz")
_MASKS = tuple(f"_mask{suffix}" for suffix in NIFTI)  # of the brain, beside a scan: not for grading


@dataclass(frozen=True)
class Scan:
    """One thing to grade: the files of one series, or one NIfTI file."""

    path: Path  # the file, or the folder that its files share
    files: tuple[Path, ...]

    @property
    def is_nifti(self) -> bool:
        """Whether it is a NIfTI file instead of DICOM."""
        return self.files == (self.path,) and self.path.name.endswith(NIFTI)


def find_scans(paths: Sequence[Path]) -> list[Scan]:
    """The scans in these files and folders: NIfTI files, and DICOM files by SeriesInstanceUID; others are passed over.

    A file that is named twice counts once.
    Raises ConfigError for a path that does not exist, and for one that is named itself and is neither.
    """
    found: dict[str | Path, dict[Path, Path]] = {}
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path} does not exist; give a DICOM file, a folder of them, or a NIfTI file.")
        named = [(scan, file) for file in _files(path) if (scan := _scan(file)) is not None]
        if not named:
            raise ConfigError(
                f"{path} holds neither DICOM nor NIfTI; give a DICOM file, a folder of them, or a NIfTI file."
            )
        for scan, file in named:
            found.setdefault(scan, {}).setdefault(file.resolve(), file)
    scans = []
    for files in map(tuple, map(dict.values, found.values())):
        scans.append(Scan(files[0] if len(files) == 1 else _shared_folder(files), files))
    return sorted(scans, key=lambda scan: scan.files[0])


def grade(
    scan: Scan, ensemble: Grader, policy: Policy = DEFAULT_POLICY, eligibility: Eligibility | None = None
) -> Assessment:
    """The assessment of one scan."""
    if not scan.is_nifti:
        return assess([file.read_bytes() for file in scan.files], ensemble, policy, eligibility)
    from qcnode.imaging.volume import volume_from_nifti

    try:
        volume = volume_from_nifti(scan.path)
    except NotAssessable as error:
        return Assessment(not_assessable(str(error)), ensemble=ensemble.id)
    except Excluded as error:
        return Assessment(not_assessable(str(error)), ensemble=ensemble.id, excluded=str(error))
    return assess_volume(volume, ensemble, policy, eligibility)


def result(path: Path, assessment: Assessment) -> dict[str, Any]:
    """One entry of the list that `qcnode score --json` prints; a stable interface."""
    return {
        "path": str(path),
        "series_uid": assessment.series_uid,
        "plane": assessment.plane.value if assessment.plane else None,
        "verdict": assessment.verdict.decision.value,
        "reasons": list(assessment.verdict.reasons),
        "artifacts": {
            artifact.value: {
                "severity": int(grade.severity),
                "probabilities": [round(p, 4) for p in grade.probabilities],
                "slices": None if grade.slices is None else list(grade.slices),
            }
            for artifact, grade in assessment.grades.items()
        },
        "ensemble": assessment.ensemble,
        "seconds": dict(assessment.seconds),
    }


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        return iter([path])
    return (file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.endswith(_MASKS))


def _shared_folder(files: Sequence[Path]) -> Path:
    if len({file.is_absolute() for file in files}) > 1:
        files = [file.absolute() for file in files]
    return Path(os.path.commonpath(files))


def _scan(path: Path) -> str | Path | None:
    """What the file belongs to: the series of a DICOM file, else itself; None for what is neither DICOM nor NIfTI."""
    if path.name.endswith(NIFTI):
        return path.resolve()
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(header.get("SeriesInstanceUID") or "") or path.resolve()
    except UNREADABLE:
        return None
