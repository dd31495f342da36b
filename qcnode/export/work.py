"""Series by series from the ledger and the spool into the exported folder."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from qcnode.agreement import consensus
from qcnode.artifacts import Artifact
from qcnode.clock import utc_now
from qcnode.config import Settings
from qcnode.errors import ConfigError, PermanentError
from qcnode.export.choice import Only
from qcnode.export.folder import Record, held, records, write_record, write_tables
from qcnode.export.pseudonyms import Pseudonyms
from qcnode.export.scan import nifti, opened
from qcnode.intake.spool import instance_path, write_durably
from qcnode.ledger.ratings import Rated
from qcnode.ledger.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What the folder holds now, and what could not be added."""

    scans: int
    labelled: int
    added: int
    gone: int  # their images are in the spool no more
    refused: int  # their images cannot be used, or say that writing is burned into them


def export(
    settings: Settings,
    folder: Path,
    only: Only,
    following: Callable[[list[Rated]], Iterable[Rated]] = lambda scans: scans,
) -> Exported:
    """Bring the folder up to date; `following` hands the new scans on one by one, and may tell how far that is."""
    state = settings.state.folder
    if not state.is_dir():
        raise ConfigError(f"There is no node's state in {state}; name the configuration with --config.")
    names, missed = Pseudonyms.of(state), Counter[str]()
    try:
        with Store.open(settings.state) as store, held(folder, only, names.fingerprint):
            known, new = records(folder), []
            for scan in store.ratings.scans(unrated=only is Only.ALL):
                name = names.scan(scan.series_uid, scan.images)
                if name in known:
                    known[name] |= _said(scan)
                    write_record(folder, known[name])
                elif only.takes(scan):
                    new.append(scan)
            for scan in following(new):
                record = _add(scan, settings, folder, names, missed)
                if record is not None:
                    known[record["scan"]] = record
            write_tables(folder, known.values())
            done = Exported(
                scans=len(known),
                labelled=sum(bool(record["labels"]) for record in known.values()),
                added=len(new) - missed.total(),
                gone=missed["gone"],
                refused=missed["refused"],
            )
            detail = {"only": only.value, "scans": done.scans, "labelled": done.labelled, "added": done.added}
            store.event("exported", None, detail, utc_now())
            return done
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}); make room, or give another folder."
        ) from error


def _add(scan: Rated, settings: Settings, folder: Path, names: Pseudonyms, missed: Counter[str]) -> Record | None:
    """Write one scan; its record, or None, counted, where it cannot be had."""
    paths = [instance_path(settings.state.folder, scan.series_uid, sop) for sop in scan.sop_instance_uids]
    try:
        instances = [path.read_bytes() for path in paths]
    except FileNotFoundError:  # retention came in between
        instances = []
    if not instances:
        missed["gone"] += 1
        return None
    try:
        seen = opened(instances, scan.study_uid, settings.eligibility)
    except PermanentError as error:
        log.warning("export_refused series=%s why=%r", scan.series_uid, str(error))
        missed["refused"] += 1
        return None
    subject, name = names.subject(seen.identity), names.scan(scan.series_uid, scan.images)
    record: Record = {
        "filename": f"{subject}_{name}_LF_{scan.plane.suffix}.nii.gz",
        "scan": name,
        "subject": subject,
        "subject_is": "a patient" if seen.by_patient else "a study: the images name no patient",
        "study_uid": names.uid(scan.study_uid) if scan.study_uid else None,
        "series_uid": names.uid(scan.series_uid),
        "scanner": names.scanner(scan.calling_ae),
        "plane": scan.plane.value,
        "contrast": seen.contrast,
        "shifted_date": names.day(seen.identity, seen.day).isoformat() if seen.day else None,
        **_said(scan),
    }
    write_record(folder, record)
    write_durably(folder / record["filename"], nifti(seen.volume))
    return record


def _said(scan: Rated) -> Record:
    """What the machine and people say of it; labels only where a person graded it."""
    return {
        "labels": {a.value: int(consensus([r.grades[a] for r in scan.ratings])) for a in Artifact}
        if scan.ratings
        else None,
        "ratings": [
            {
                "rater": rating.rater,
                "revision": rating.revision,
                "corrected": [artifact.value for artifact in rating.corrected],
                "grades": {artifact.value: int(rating.grades[artifact]) for artifact in Artifact},
            }
            for rating in scan.ratings
        ],
        "machine": {
            "ensemble": scan.ensemble,
            "revision": scan.revision,
            "grades": {artifact.value: int(scan.machine[artifact]) for artifact in Artifact},
        },
    }
