"""What technologists graded, back into training: nothing of the patient leaves, and training takes the rest."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread

from qcnode import cli
from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.config import Settings, StateFolder
from qcnode.errors import ConfigError
from qcnode.export import folder as exported
from qcnode.export import work
from qcnode.export.choice import Only
from qcnode.export.pseudonyms import KEY_FILE, Pseudonyms
from qcnode.export.scan import nifti
from qcnode.export.work import Exported, export
from qcnode.imaging import phantom
from qcnode.imaging.swoop import classic_series, swoop_series, to_bytes
from qcnode.imaging.volume import Volume, volume_from_instances, volume_from_nifti
from qcnode.intake.spool import Spool
from qcnode.ledger.store import Store
from qcnode.steps import adopt
from qcnode.verdict import Assessment, Grade, not_assessable, verdict
from train.dataset import read_scans

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PLANTED = {
    "PatientName": "ZEBRA^QUAGGA",
    "PatientID": "PID-77-QUOKKA",
    "PatientBirthDate": "20240229",
    "PatientAddress": "17 Wombat Lane",
    "OtherPatientNames": "OKAPI^NUMBAT",
    "PatientComments": "Twin of Ocelot",
    "AccessionNumber": "ACC-PANGOLIN",
    "InstitutionName": "Saint Axolotl",
    "OperatorsName": "FOSSA^F",
    "ReferringPhysicianName": "DOCTOR^KAKAPO",
    "StudyDate": "20250817",
    "StudyDescription": "Zebra brain",
    "SeriesDescription": "T2 for Zebra",
    "DeviceSerialNumber": "SN-AARDVARK",
}
NOISE, MOTION = Artifact.NOISE, Artifact.MOTION


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state=StateFolder(folder=tmp_path / "state"))


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings.state) as opened:
        yield opened


@pytest.fixture(scope="module")
def heads() -> dict[Plane, Volume]:
    return {plane: phantom.head(np.random.default_rng(3), plane) for plane in Plane}


def arrived(store: Store, settings: Settings, *datasets: Dataset) -> str:
    """The instances in the spool and the ledger; the series' UID."""
    spool = Spool(settings.state.folder)
    for dataset in datasets:
        spool.put(to_bytes(dataset), dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
    adopt(store, spool, NOW)
    return str(datasets[0].SeriesInstanceUID)


def graded(store: Store, uid: str, plane: Plane, worst: Artifact | None = None, revision: int = 1) -> None:
    series = store.overview.detail(uid)
    assert series is not None
    store.mark_ready(uid, revision, "all its frames are there", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    assert (claim.series_uid, claim.revision) == (uid, revision)
    clean, bad = Grade(Severity.NONE, (0.9, 0.1, 0.0)), Grade(Severity.SEVERE, (0.0, 0.1, 0.9))
    grades = {artifact: bad if artifact is worst else clean for artifact in Artifact}
    assert store.finish(claim, Assessment(verdict(grades), uid, plane, grades, "simulated-aa"), [], [], NOW)


def planted(volume: Volume, number: int, **other: str) -> Dataset:
    dataset = swoop_series(volume, patient_id="x", generator=np.random.default_rng(number))
    for keyword, value in (PLANTED | other).items():
        setattr(dataset, keyword, value)
    block = dataset.private_block(0x0011, "ZEBRA PRIVATE", create=True)
    block.add_new(0x01, "LO", "Quokka in private")
    return dataset


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def every_byte(folder: Path) -> bytes:
    """Of all files as they are and unzipped, and of their names."""
    parts = []
    for path in folder.rglob("*"):
        parts.append(str(path.relative_to(folder)).encode())
        if path.is_file():
            data = path.read_bytes()
            parts += [data, gzip.decompress(data)] if path.suffix == ".gz" else [data]
    return b"\n".join(parts)


def test_nothing_of_the_patient_is_in_any_byte(
    store: Store, settings: Settings, heads: dict[Plane, Volume], tmp_path: Path
) -> None:
    datasets = [planted(heads[Plane.AXIAL], 1), planted(heads[Plane.CORONAL], 2)]
    for dataset, plane in zip(datasets, (Plane.AXIAL, Plane.CORONAL), strict=True):
        graded(store, arrived(store, settings, dataset), plane)
    store.opinions.agree(datasets[0].SeriesInstanceUID, 1, "mira", NOW)
    out = tmp_path / "out"
    (settings.state.folder / KEY_FILE).write_bytes(b"k" * 32)
    assert export(settings, out, Only.ALL) == Exported(scans=2, labelled=1, added=2, gone=0, refused=0)
    everything = every_byte(out).lower()
    ordinary = {"Brain", "Doctor"}
    words = {word for value in PLANTED.values() for word in value.replace("^", " ").title().split() if len(word) > 4}
    assert len(words) > 15
    uids = {str(getattr(one, f"{which}InstanceUID")) for one in datasets for which in ("Study", "Series", "SOP")}
    for word in (*words, *uids, "wombat", "quokka", "SWOOP1", "2025-08", "2026-03"):
        assert word in ordinary or word.lower().encode() not in everything, word
    assert b"mira" in everything, "the people who graded are named"
    assert b"FACES ARE NOT REMOVED" in (out / "README.txt").read_bytes()
    assert json.loads((out / "export.json").read_text())["faces"] == "not removed"


def test_dates_are_shifted_by_as_many_days_for_all_of_a_patient_s(
    store: Store, settings: Settings, heads: dict[Plane, Volume], tmp_path: Path
) -> None:
    days = {1: "20250817", 2: "20250901", 3: "", 4: "00010101"}
    for number, day in days.items():
        patient = {"PatientID": "PID-77-QUOKKA"} if number < 3 else {"PatientID": f"PID-{number}"}
        dataset = planted(heads[Plane.AXIAL], number, StudyDate=day, **patient)
        graded(store, arrived(store, settings, dataset), Plane.AXIAL)
    export(settings, tmp_path / "out", Only.ALL)
    records = [json.loads(path.read_text()) for path in (tmp_path / "out" / "ratings").iterdir()]
    shifted = sorted(date.fromisoformat(record["shifted_date"]) for record in records if record["shifted_date"])
    assert [record["shifted_date"] for record in records].count(None) == 2, "without a date, or none that can be"
    first, second = shifted
    assert second - first == date(2025, 9, 1) - date(2025, 8, 17)
    assert timedelta(days=1) <= date(2025, 8, 17) - first <= timedelta(days=3650)


@given(st.text(max_size=9), st.dates(date(1980, 1, 1)))
def test_another_patient_s_days_are_shifted_otherwise(identity: str, day: date) -> None:
    names = Pseudonyms(b"k" * 32)
    assert day - timedelta(days=3650) <= names.day(identity, day) < day
    assert names.day(identity, day) == Pseudonyms(b"k" * 32).day(identity, day)
    assert len({names.day(f"{identity}{number}", day) for number in range(9)}) > 1


def test_a_nifti_holds_voxels_and_their_place_alone(heads: dict[Plane, Volume], tmp_path: Path) -> None:
    shares = {plane: Volume(volume.array / 7, volume.affine) for plane, volume in heads.items()}
    whole = {plane: Volume(np.rint(volume.array), volume.affine) for plane, volume in heads.items()}
    for plane, volume in [*shares.items(), *whole.items()]:
        data = nifti(volume)
        assert data == nifti(volume), "the same bytes each time"
        assert data[4:8] == b"\0\0\0\0", "gzip would note when"
        (tmp_path / "one.nii.gz").write_bytes(data)
        header = nibabel.load(tmp_path / "one.nii.gz").header
        for field in ("descrip", "aux_file", "intent_name", "db_name"):
            assert header[field].tobytes().strip(b"\0") == b"", field
        assert len(header.extensions) == 0
        again = volume_from_nifti(tmp_path / "one.nii.gz")
        assert again.plane is plane
        np.testing.assert_array_equal(again.array, volume.array)
        np.testing.assert_allclose(again.affine, volume.affine, atol=1e-4)


def test_training_reads_it_as_it_is_and_keeps_a_patient_together(
    store: Store, settings: Settings, heads: dict[Plane, Volume], tmp_path: Path
) -> None:
    planes = [Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL, Plane.AXIAL]
    ids = ["PID-77-QUOKKA", "pid-77-quokka ", "OTHER", "PID-77-QUOKKA"]
    for number, (plane, patient_id) in enumerate(zip(planes, ids, strict=True)):
        uid = arrived(store, settings, planted(heads[plane], number, PatientID=patient_id))
        graded(store, uid, plane, MOTION)
        store.opinions.agree(uid, 1, "mira", NOW)
        store.opinions.correct(uid, 1, {NOISE: Severity(number % 3)}, "mira", NOW)
    export(settings, tmp_path / "out", Only.RATED)
    read = read_scans(tmp_path / "out")
    assert sorted(scan.plane for scan in read) == sorted(planes)
    assert len({scan.subject for scan in read}) == 2
    assert sorted(scan.labels[0] for scan in read) == [0, 0, 1, 2]
    assert [scan.labels[4] for scan in read] == [2, 2, 2, 2]


def test_train_fit_takes_it(store: Store, settings: Settings, heads: dict[Plane, Volume], tmp_path: Path) -> None:
    from train.__main__ import main

    (settings.state.folder / KEY_FILE).write_bytes(b"k" * 32)  # so that the split is the same each time
    for number in range(16):
        plane = list(Plane)[number % 3]
        uid = arrived(store, settings, planted(heads[plane], number, PatientID=f"P{number // 2}"))
        graded(store, uid, plane)
        store.opinions.agree(uid, 1, "mira", NOW)
        store.opinions.correct(uid, 1, {NOISE: Severity(number % 3)}, "mira", NOW)
    assert export(settings, tmp_path / "out", Only.RATED).labelled == 16
    (tmp_path / "tiny.toml").write_text("shared_epochs = 1\n")
    arguments = ["--data", tmp_path / "out", "--out", tmp_path / "run", "--config", tmp_path / "tiny.toml"]
    assert main(["fit", *map(str, arguments), "--artifact", "Noise", "--width", "2", "--epochs", "1"]) == 0
    assert json.loads((tmp_path / "run" / "Noise.json").read_text())["artifact"] == "Noise"


def test_several_people_their_middle_grade_and_how_far_they_agree(
    store: Store, settings: Settings, heads: dict[Plane, Volume], tmp_path: Path
) -> None:
    said = [{"mira": 0, "jo": 2, "ada": 2}, {"mira": 1, "jo": 2}, {"mira": 2, "jo": 2}]
    for number, grades in enumerate(said):
        uid = arrived(store, settings, planted(heads[Plane.AXIAL], number))
        graded(store, uid, Plane.AXIAL)
        store.opinions.acknowledge(uid, 1, "viewer", NOW)
        for by, grade in grades.items():
            store.opinions.agree(uid, 1, by, NOW)
            store.opinions.correct(uid, 1, {NOISE: Severity(grade)}, by, NOW)
    out = tmp_path / "out"
    export(settings, out, Only.RATED)
    ratings = rows(out / "ratings.csv")
    by_file: dict[str, dict[str, int]] = {}
    for row in ratings:
        by_file.setdefault(row["filename"], {})[row["rater"]] = int(row["Noise"])
        assert row["corrected"] == ("Noise" if row["Noise"] != "0" else "")
    assert sorted(by_file.values(), key=str) == sorted(said, key=str), "who only acknowledged has not graded"
    labels = {row["filename"]: int(row["Noise"]) for row in rows(out / "labels.csv")}
    assert {name: sorted(grades.values())[len(grades) // 2] for name, grades in by_file.items()} == labels
    agreement = {(row["artifact"], row["rater"], row["other"]): row for row in rows(out / "agreement.csv")}
    pair = agreement["Noise", "jo", "mira"]
    assert (pair["scans"], pair["same"]) == ("3", "0.3333")
    assert agreement["Noise", "*", "*"]["scans"] == "5"
    motion = agreement["Motion", "jo", "mira"]
    assert (motion["same"], motion["quadratic_kappa"]) == ("1.0000", ""), "one severity tells nothing from chance"


def test_a_second_export_adds_what_is_new_and_brings_words_up_to_date(
    store: Store, settings: Settings, heads: dict[Plane, Volume], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = arrived(store, settings, planted(heads[Plane.AXIAL], 1))
    graded(store, first, Plane.AXIAL)
    store.opinions.agree(first, 1, "mira", NOW)
    export(settings, out, Only.RATED)
    before = digests(out)
    assert export(settings, out, Only.RATED).added == 0
    assert digests(out) == before
    Spool(settings.state.folder).remove(first)
    store.opinions.correct(first, 1, {MOTION: Severity.SEVERE}, "jo", NOW)
    second = arrived(store, settings, planted(heads[Plane.AXIAL], 2))
    graded(store, second, Plane.AXIAL)
    store.opinions.agree(second, 1, "mira", NOW)
    assert export(settings, out, Only.RATED) == Exported(scans=2, labelled=2, added=1, gone=0, refused=0)
    images = {name: digest for name, digest in before.items() if name.endswith(".nii.gz")}
    assert digests(out).items() >= images.items()
    assert sorted(row["Motion"] for row in rows(out / "labels.csv")) == ["0", "2"]
    fresh = tmp_path / "fresh"
    assert export(settings, fresh, Only.RATED).gone == 1
    (name,) = (path.name for path in fresh.glob("*.nii.gz"))
    assert (out / name).read_bytes() == (fresh / name).read_bytes(), "two exports of a node agree"


def test_an_export_that_was_broken_off_goes_on(
    store: Store,
    settings: Settings,
    heads: dict[Plane, Volume],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(3):
        uid = arrived(store, settings, planted(heads[Plane.AXIAL], number))
        graded(store, uid, Plane.AXIAL)
        store.opinions.agree(uid, 1, "mira", NOW)
    out, whole = tmp_path / "out", tmp_path / "whole"
    export(settings, whole, Only.RATED)
    calls = iter([False, True])

    def dies(volume: Volume) -> bytes:
        if next(calls):
            raise KeyboardInterrupt
        return nifti(volume)

    monkeypatch.setattr(work, "nifti", dies)
    with pytest.raises(KeyboardInterrupt):
        export(settings, out, Only.RATED)
    assert not (out / "labels.csv").exists()
    (out / ".left.partial").write_bytes(b"half")
    monkeypatch.undo()
    assert export(settings, out, Only.RATED).added == 2
    assert digests(out) == digests(whole)


def test_assessed_again_it_is_the_same_scan_but_with_a_late_image_another(
    store: Store, settings: Settings, heads: dict[Plane, Volume], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    slices = classic_series(heads[Plane.AXIAL], patient_id="P", generator=np.random.default_rng(5))
    uid = arrived(store, settings, *slices[:-1])
    graded(store, uid, Plane.AXIAL)
    store.opinions.correct(uid, 1, {NOISE: Severity.SEVERE}, "mira", NOW)
    export(settings, out, Only.RATED)
    assert store.retry(uid, NOW)
    graded(store, uid, Plane.AXIAL, MOTION, revision=2)
    assert export(settings, out, Only.RATED).added == 0
    (row,) = rows(out / "ratings.csv")
    assert (row["rater"], row["revision"], row["Noise"], row["Motion"]) == ("mira", "1", "2", "0")
    store.opinions.agree(uid, 2, "mira", NOW)
    export(settings, out, Only.RATED)
    (row,) = rows(out / "ratings.csv")
    assert (row["revision"], row["Noise"], row["Motion"]) == ("2", "0", "2"), "the last word of each person stands"
    arrived(store, settings, slices[-1])
    assert export(settings, out, Only.RATED).scans == 1, "while it is not whole, it is left as it was"
    graded(store, uid, Plane.AXIAL, revision=3)
    store.opinions.agree(uid, 3, "mira", NOW)
    assert export(settings, out, Only.RATED).added == 1
    shapes = {nibabel.load(path).shape[2] for path in out.glob("*.nii.gz")}
    assert shapes == {len(slices), len(slices) - 1}


def test_only_takes_what_it_says(store: Store, settings: Settings, heads: dict[Plane, Volume], tmp_path: Path) -> None:
    uids = [arrived(store, settings, planted(heads[Plane.AXIAL], number)) for number in range(3)]
    for uid in uids:
        graded(store, uid, Plane.AXIAL)
    store.opinions.agree(uids[0], 1, "mira", NOW)
    store.opinions.correct(uids[1], 1, {NOISE: Severity.SEVERE}, "mira", NOW)
    found = {only: export(settings, tmp_path / only, only) for only in Only}
    assert {only: (done.scans, done.labelled) for only, done in found.items()} == {
        Only.RATED: (2, 2),
        Only.CORRECTED: (1, 1),
        Only.CONFIRMED: (1, 1),
        Only.ALL: (3, 2),
    }
    assert rows(tmp_path / "corrected" / "labels.csv")[0]["Noise"] == "2"
    with pytest.raises(ConfigError, match="--only corrected"):
        export(settings, tmp_path / "corrected", Only.ALL)


def test_writing_in_the_image_and_what_was_not_graded_stay_here(
    store: Store, settings: Settings, heads: dict[Plane, Volume], tmp_path: Path
) -> None:
    burned = arrived(store, settings, planted(heads[Plane.AXIAL], 1, BurnedInAnnotation="YES"))
    graded(store, burned, Plane.AXIAL)
    store.opinions.agree(burned, 1, "mira", NOW)
    odd = arrived(store, settings, planted(heads[Plane.AXIAL], 2))
    store.mark_ready(odd, 1, "whole", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    assert store.finish(claim, Assessment(not_assessable("Blank."), odd, ensemble="e"), [], [], NOW)
    store.opinions.agree(odd, 1, "mira", NOW)
    done = export(settings, tmp_path / "out", Only.ALL)
    assert done == Exported(scans=0, labelled=0, added=0, gone=0, refused=1)


def test_without_a_patient_id_a_study_is_the_subject(
    store: Store, settings: Settings, heads: dict[Plane, Volume], tmp_path: Path
) -> None:
    studies = ["2.25.1", "2.25.1", "2.25.2"]
    for number, study in enumerate(studies):
        uid = arrived(store, settings, planted(heads[Plane.AXIAL], number, PatientID="", StudyInstanceUID=study))
        graded(store, uid, Plane.AXIAL)
        store.opinions.agree(uid, 1, "mira", NOW)
    export(settings, tmp_path / "out", Only.RATED)
    assert len({scan.subject for scan in read_scans(tmp_path / "out")}) == 2
    assert all("study" in record["subject_is"] for record in exported.records(tmp_path / "out").values())


def test_a_folder_of_something_else_or_of_another_node_is_left_alone(
    store: Store, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        export(settings, tmp_path / "thesis", Only.RATED)
    export(settings, tmp_path / "out", Only.RATED)
    (settings.state.folder / KEY_FILE).unlink()
    with pytest.raises(ConfigError, match="another key"):
        export(settings, tmp_path / "out", Only.RATED)
    with exported.held(tmp_path / "new", Only.RATED, "k"), pytest.raises(ConfigError, match="at work"):
        export(settings, tmp_path / "new", Only.RATED)


def test_the_key_is_the_node_s_own_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    one = Pseudonyms.of(tmp_path)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    again, other = Pseudonyms.of(tmp_path), Pseudonyms(b"x" * 32)
    for names in (Pseudonyms.subject, Pseudonyms.uid, Pseudonyms.scanner):
        assert names(one, "1.2.3") == names(again, "1.2.3")
        assert len({names(one, "1.2.3"), names(one, "1.2.4"), names(other, "1.2.3")}) == 3
    assert one.scan("1.2.3", 1) != one.scan("1.2.3", 2)
    assert len(one.uid("1.2.3")) <= 64


def test_the_command_says_what_it_did_and_that_faces_stay(
    store: Store,
    settings: Settings,
    heads: dict[Plane, Volume],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uid = arrived(store, settings, planted(heads[Plane.AXIAL], 1))
    graded(store, uid, Plane.AXIAL)
    store.opinions.agree(uid, 1, "mira", NOW)
    site = tmp_path / "site.toml"
    site.write_text(f'[state]\nfolder = "{settings.state.folder}"\n')
    monkeypatch.setattr(sys, "argv", ["qcnode", "export", str(tmp_path / "out"), "--config", str(site)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert "holds 1 scan: 1 with labels, 1 new." in printed
    assert "Faces are NOT removed" in printed
    event = store.overview.events(1)[0]
    assert (event.kind, event.detail["scans"]) == ("exported", 1)


def test_the_volume_is_that_of_the_instances(
    store: Store, settings: Settings, heads: dict[Plane, Volume], tmp_path: Path
) -> None:
    dataset = planted(heads[Plane.SAGITTAL], 9)
    uid = arrived(store, settings, dataset)
    graded(store, uid, Plane.SAGITTAL)
    store.opinions.agree(uid, 1, "mira", NOW)
    export(settings, tmp_path / "out", Only.RATED)
    (scan,) = read_scans(tmp_path / "out")
    seen = volume_from_instances([to_bytes(dataset)])
    np.testing.assert_array_equal(volume_from_nifti(scan.path).array, seen.array)
    assert dcmread(next((settings.state.folder / "spool" / uid).glob("*.dcm"))).PatientID == PLANTED["PatientID"]
