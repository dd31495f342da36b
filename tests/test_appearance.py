"""The paper's simulation: an empty draw is the identity, draws replay, severe is more than moderate."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lisa_folder import write_lisa_folder

from qcnode.artifacts import Artifact, Severity
from qcnode.errors import ConfigError
from train.__main__ import main
from train.dataset import inputs, read_scans
from train.simulation.appearance import EFFECTS, AppearanceDraw, Image, applied, draw, draw_levels, is_true
from train.simulation.copies import simulate_copies, write_copy
from train.simulation.severity import OutOfContract

AFFINE = np.diag([4.8, 4.8, 5.0, 1.0])  # a head of 40 x 44 x 28 voxels: coarse, and quick
AFFECTED = [(artifact, severity) for artifact in Artifact for severity in (Severity.MODERATE, Severity.SEVERE)]


def _levels(artifact: Artifact | None = None, severity: Severity = Severity.NONE) -> dict[Artifact, Severity]:
    return {a: severity if a == artifact else Severity.NONE for a in Artifact}


@pytest.fixture(scope="module")
def head() -> Image:
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 44, 28)), indexing="ij")
    radius = np.sqrt((x / 0.62) ** 2 + (y / 0.7) ** 2 + (z / 0.7) ** 2)
    inside = np.where(radius < 1, 400 + 80 * np.sin(9 * x) * np.sin(8 * y) * np.sin(7 * z), 0.0)
    return np.abs(inside + generator.normal(0, 12, inside.shape)).astype(np.float32)


def test_a_draw_without_an_artifact_is_the_identity(head: Image) -> None:
    drawn = draw(np.random.default_rng(0), _levels())
    changed, effects = applied(head, AFFINE, drawn)
    assert changed.tobytes() == head.tobytes()
    assert effects == {}
    assert is_true(drawn, effects)


@pytest.mark.parametrize(("artifact", "severity"), AFFECTED)
def test_a_recorded_draw_replays_to_the_same_bytes(head: Image, artifact: Artifact, severity: Severity) -> None:
    drawn = draw(np.random.default_rng(int(severity)), _levels(artifact, severity))
    again = AppearanceDraw.from_json(json.loads(json.dumps(drawn.to_json())))
    assert again == drawn
    first, second = (applied(head, AFFINE, each) for each in (drawn, again))
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1] == second[1]
    assert first[0].min() >= 0


@pytest.mark.parametrize("artifact", list(Artifact))
def test_severe_changes_the_scan_more_than_moderate_and_moderate_more_than_nothing(
    head: Image, artifact: Artifact
) -> None:
    generator = np.random.default_rng(1)
    moderate, severe = (
        np.median([applied(head, AFFINE, draw(generator, _levels(artifact, level)))[1][artifact] for _ in range(5)])
        for level in (Severity.MODERATE, Severity.SEVERE)
    )
    assert 0 < moderate < 0.8 * severe


def test_no_change_is_true_of_both_severities() -> None:
    for (_, high), (low, _) in EFFECTS.values():
        assert high < low


def test_a_draw_is_true_only_within_its_severitys_interval() -> None:
    drawn = AppearanceDraw({a.value: int(a is Artifact.NOISE) for a in Artifact}, ())
    assert is_true(drawn, {Artifact.NOISE: 0.05})
    assert not is_true(drawn, {Artifact.NOISE: 0.06})
    assert not is_true(drawn, {Artifact.NOISE: 0.09})


def test_severities_are_drawn_as_published_where_there_are_any() -> None:
    generator = np.random.default_rng(2)
    drawn = [draw_levels(generator, list(Artifact)) for _ in range(6000)]
    affected = Counter(sum(level > 0 for level in levels.values()) for levels in drawn)
    assert set(affected) == {1, 2}
    # 1.5 artifacts are drawn on average, .4 and .2 of them above 0, and .72 of the draws have one of these
    for artifact in Artifact:
        share = np.bincount([levels[artifact] for levels in drawn], minlength=3) / len(drawn)
        np.testing.assert_allclose(share[1:], [1.5 * 0.4 / 0.72 / 7, 1.5 * 0.2 / 0.72 / 7], atol=0.012)


def test_an_artifact_that_a_scan_has_is_not_drawn_onto_it() -> None:
    generator, free = np.random.default_rng(2), [Artifact.NOISE, Artifact.CONTRAST]
    for _ in range(100):
        levels = draw_levels(generator, free)
        assert not any(level for artifact, level in levels.items() if artifact not in free)
    assert draw_levels(generator, free[:1]).keys() == set(Artifact)


def test_positioning_alone_is_not_blurred_and_everything_else_is() -> None:
    for artifact, severity in AFFECTED:
        steps = [step.transform for step in draw(np.random.default_rng(3), _levels(artifact, severity)).steps]
        assert ("Blur" in steps) == (artifact is not Artifact.POSITIONING)


def test_banding_is_noise_in_a_slab_and_nowhere_else(head: Image) -> None:
    drawn = draw(np.random.default_rng(4), _levels(Artifact.BANDING, Severity.SEVERE))
    (slab,) = [step for step in drawn.steps if step.artifact is Artifact.BANDING]
    assert slab.slab is not None
    start, stop = (round(share * len(head)) for share in slab.slab)
    changed = slab(head / 400, AFFINE) != head / 400
    assert changed[start:stop].mean() > 0.99
    assert not changed[:start].any()
    assert not changed[stop:].any()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    data, out = tmp_path_factory.mktemp("rated"), tmp_path_factory.mktemp("filled")
    write_lisa_folder(data, subjects=2)
    assert main(["simulate", "--preset", "paper", str(data), str(out)]) == 0
    return data, out


def test_a_folder_is_filled_up_with_copies_of_the_same_patients(folders: tuple[Path, Path]) -> None:
    data, out = folders
    before, after = read_scans(data), read_scans(out)
    assert [s.labels for s in after if not s.is_copy] == [s.labels for s in before]
    originals = {scan.path.name: scan for scan in before}
    copies = [scan for scan in after if scan.is_copy]
    assert copies
    for copy in copies:
        record = json.loads((out / copy.path.name.replace(".nii.gz", ".json")).read_text())
        scan = originals[record["scan"]]
        assert (copy.subject, copy.plane) == (scan.subject, scan.plane)
        levels = record["draw"]["levels"]
        for artifact, own, label in zip(Artifact, scan.labels, copy.labels, strict=True):
            assert label == (own or levels[artifact])
            assert not (own and levels[artifact])
        assert any(levels.values())
        assert copy.path.read_bytes() != scan.path.read_bytes()


def test_a_copy_is_the_same_again_and_stays_when_it_is_there(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data, out = folders
    copy = next(scan for scan in read_scans(out) if scan.is_copy)
    scan = next(s for s in read_scans(data) if s.path.name == copy.path.name.replace("copy-1_", ""))
    write_copy(scan, tmp_path, seed=1, number=1)
    assert (tmp_path / copy.path.name).read_bytes() == copy.path.read_bytes()
    (tmp_path / copy.path.name).write_bytes(b"as it was")
    assert write_copy(scan, tmp_path, seed=1, number=1) == (copy.path.name, list(copy.labels))
    assert (tmp_path / copy.path.name).read_bytes() == b"as it was"
    assert not list(tmp_path.glob("*.partial"))


def test_a_copy_of_another_seed_number_or_rating_is_drawn_anew(folders: tuple[Path, Path], tmp_path: Path) -> None:
    scan = next(scan for scan in read_scans(folders[0]) if not any(scan.labels))
    rated = replace(scan, labels=(2, 2, 2, 2, 2, 2, 0))
    images = set()
    for its, seed in ((scan, 1), (scan, 2), (rated, 2)):
        name, labels = write_copy(its, tmp_path, seed=seed, number=1)
        record = json.loads((tmp_path / name.replace(".nii.gz", ".json")).read_text())
        levels = record["draw"]["levels"].values()
        assert (record["seed"], record["number"], record["labels"]) == (seed, 1, labels)
        assert labels == [own or level for own, level in zip(its.labels, levels, strict=True)]
        images.add((tmp_path / name).read_bytes())
    assert len(images) == 3


def test_the_record_of_a_copy_makes_it_again(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = folders
    record = min(out.glob("*_copy-1_*.json"))
    assert main(["simulate", str(data), str(tmp_path / "again"), "--replay", str(record)]) == 0
    again = sorted((tmp_path / "again").iterdir())
    assert [path.name for path in again] == [record.name, f"{record.stem}.nii.gz"]
    for path in again:
        assert path.read_bytes() == (out / path.name).read_bytes()
    assert main(["simulate", str(tmp_path), str(tmp_path / "again"), "--replay", str(record)]) == 2
    assert "name the folder of scans that were copied" in capsys.readouterr().err
    another = min(path for path in data.glob("*.nii.gz") if path.name != json.loads(record.read_text())["scan"])
    (tmp_path / json.loads(record.read_text())["scan"]).write_bytes(another.read_bytes())
    assert main(["simulate", str(tmp_path), str(tmp_path / "again"), "--replay", str(record)]) == 2
    assert "name the folder that the scan was made from" in capsys.readouterr().err


def test_only_training_subjects_of_a_run_are_copied(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, out = folders[0], tmp_path / "run", tmp_path / "filled"
    run.mkdir()
    (run / "split.json").write_text(json.dumps({"LISA_0001": "test", "LISA_0002": "train"}))
    command = ["simulate", "--preset", "paper", str(data), str(out), "--runs", str(run), "--workers", "1"]
    assert main(command) == 0
    scans = read_scans(out)
    copied = [scan.subject for scan in scans if scan.is_copy]
    assert set(copied) == {"LISA_0002"}
    assert len(scans) - len(copied) == len(read_scans(data))
    assert f"before (6) | after ({6 + len(copied)})" in capsys.readouterr().out
    (run / "split.json").write_text(json.dumps({"LISA_0003": "train"}))
    assert main(command) == 2
    assert "name the data that the run was made from" in capsys.readouterr().err


def test_what_an_interruption_left_is_written_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data, out = folders
    copy = next(scan.path for scan in read_scans(out) if scan.is_copy)
    scan = next(scan.path for scan in read_scans(data) if not any(scan.labels))
    for path in out.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / copy.name).with_suffix("").with_suffix(".json").unlink()
    (tmp_path / copy.name).write_bytes(b"half a copy")
    (tmp_path / scan.name).write_bytes(b"half a scan")
    simulate_copies(data, tmp_path, seed=1, workers=1)
    for path in out.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_folders_whose_scans_would_be_copied_again_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data, out = folders
    for into in (data, data / "filled"):
        with pytest.raises(ConfigError, match="name a folder beside it"):
            simulate_copies(data, into, seed=1)
    with pytest.raises(ConfigError, match="is a copy itself"):
        simulate_copies(out, tmp_path, seed=1)


def test_what_a_scan_has_is_left_to_its_raters(folders: tuple[Path, Path], tmp_path: Path) -> None:
    scan = next(scan for scan in read_scans(folders[0]) if not any(scan.labels))
    rated = replace(scan, labels=tuple(0 if artifact is Artifact.NOISE else 2 for artifact in Artifact))
    name, labels = write_copy(rated, tmp_path, seed=1, number=1)
    assert labels[0] > 0
    assert labels[1:] == [2] * 6
    levels = json.loads((tmp_path / name.replace(".nii.gz", ".json")).read_text())["draw"]["levels"]
    assert {artifact for artifact, level in levels.items() if level} == {Artifact.NOISE}
    with pytest.raises(OutOfContract, match="has every artifact already"):
        write_copy(replace(scan, labels=(1,) * 7), tmp_path, seed=1, number=2)


def test_copies_are_trained_on_and_never_measured_on(folders: tuple[Path, Path]) -> None:
    scans = read_scans(folders[1])
    everything = inputs(scans, [np.zeros((1, 1, 1), np.float16)] * len(scans))
    subjects = {scan.subject for scan in scans}
    assert len(everything.of(subjects).scans) == len(scans)
    assert [s.is_copy for s in everything.of(subjects, copies=False).scans] == [False] * 6


@pytest.mark.parametrize(
    "options",
    [
        ["--preset", "paper", "--count", "3"],
        ["--preset", "paper", "--prevalence", "measured"],
        ["--preset", "paper", "--varied"],
        ["--preset", "paper", "--weighting", "T1w"],
        ["--copies", "2"],
    ],
)
def test_an_option_of_the_other_preset_is_refused(options: list[str], tmp_path: Path) -> None:
    assert main(["simulate", *options, str(tmp_path), str(tmp_path / "out")]) == 2
