"""The whole way from a LISA folder to weights that the node loads, through the command line."""

from __future__ import annotations

import csv
import errno
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chance_weights import write_chance_weights
from lisa_folder import write_lisa_folder
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qcnode.artifacts import Artifact, Plane
from qcnode.assess import assess_volume
from qcnode.ensemble.calibration import Calibration, probabilities
from qcnode.ensemble.model import Member, Output
from qcnode.ensemble.runtime import Ensemble
from qcnode.ensemble.weights import read_manifest
from qcnode.imaging import phantom
from qcnode.imaging.preprocess import INPUT_SHAPE, network_input
from train import loop
from train.__main__ import main
from train.checkpoint import save_whole
from train.config import FitConfig
from train.dataset import Inputs, Scan, inputs
from train.export import calibrated, write_weights
from train.shared import Shared, new_member
from train.studies import folds

TINY = ["--width", "2", "--epochs", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lisa")
    write_lisa_folder(folder, subjects=8)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    config = out / "tiny.toml"
    config.write_text("shared_epochs = 1\nseed = 3\n")
    assert main(["fit", "--data", str(data), "--out", str(out), "--config", str(config), *TINY]) == 0
    return out


def test_a_run_leaves_a_member_and_its_record_for_every_artifact(run: Path) -> None:
    for artifact in Artifact:
        record = json.loads((run / f"{artifact}.json").read_text())
        assert record["training"]["seed"] == 3
        assert record["training"]["width"] == record["width"] == 2
        assert record["commit"]
        assert load_file(run / f"{artifact}.safetensors")
    assert set(json.loads((run / "split.json").read_text()).values()) == {"train", "validation", "test"}


def test_an_export_loads_grades_and_states_its_figures(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights"
    assert main(["export", "--data", str(data), "--runs", str(run), "--out", str(out), "--name", "tiny"]) == 0
    manifest = read_manifest(out)
    assert manifest.id.startswith("tiny-")
    part_of = json.loads((run / "split.json").read_text())
    for entry in manifest.members:
        assert entry.figures is not None
        assert entry.figures.subjects == list(part_of.values()).count("test")
        assert entry.figures.macro_f1.low <= entry.figures.macro_f1.value <= entry.figures.macro_f1.high
    assert set(Ensemble.load(out).grade(np.ones(INPUT_SHAPE, np.float32))) == set(Artifact)
    capsys.readouterr()
    command = ["evaluate", "--data", str(data), "--weights", str(out), "--runs", str(run), "--json"]
    assert main(command) == 0
    again = json.loads(capsys.readouterr().out)
    for entry in manifest.members:
        assert entry.figures is not None
        its = again[entry.artifact]
        assert its.items() >= entry.figures.model_dump(mode="json").items()
        assert np.mean(list(its["challenge"].values())) == pytest.approx(entry.figures.challenge_mean, abs=6e-4)
        assert its["majority_challenge"]["macro f1"] == pytest.approx(entry.figures.majority_macro_f1, abs=6e-4)
        assert its["forest_macro_f1"]["value"] > its["majority_challenge"]["macro f1"]  # severities are noise
    assert main([*command, "--no-forest"]) == 0
    assert "forest_macro_f1" not in json.loads(capsys.readouterr().out)["Noise"]


def test_an_export_has_a_model_card_and_leaves_one_alone_that_a_person_changed(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    command = ["export", "--data", str(data), "--runs", str(run), "--out", str(tmp_path)]
    card = tmp_path / "MODEL_CARD.md"
    assert main([*command, "--name", "first", "--contrast", "T1w"]) == 0
    made, shown = card.read_text(), capsys.readouterr().out
    assert "# Model card: first-" in made
    assert "- **Contrasts**: T1w." in made
    training = list(json.loads((run / "split.json").read_text()).values()).count("train")
    assert f"| compact-resnet | 2     | {3 * training} " in made
    assert "| plane: axial " in made
    assert "forest of metrics" in shown
    assert shown.strip() in made
    card.write_text(made + "Not tested at 3 T.\n")
    assert main([*command, "--name", "second", "--no-forest"]) == 0
    assert card.read_text() == made + "Not tested at 3 T.\n"
    assert "MODEL_CARD.md was written or changed by a person" in caplog.text
    assert read_manifest(tmp_path).id.startswith("second-")
    assert "forest of metrics" not in capsys.readouterr().out


def test_an_export_says_what_the_runs_members_say(run: Path, data: Path, tmp_path: Path) -> None:
    assert main(["export", "--data", str(data), "--runs", str(run), "--out", str(tmp_path)]) == 0
    image = network_input(phantom.head(np.random.default_rng(61), Plane.CORONAL))
    grades = Ensemble.load(tmp_path, "cpu", 1).grade(image)
    for entry in read_manifest(tmp_path).members:
        member = Member("compact-resnet", 2).eval()
        member.load_state_dict(load_file(run / f"{entry.artifact}.safetensors"))
        with torch.no_grad():
            logits = member(torch.from_numpy(np.asarray(image, np.float32))[None, None]).severity.numpy()
        said = probabilities(logits, Calibration(entry.temperature, entry.bias, entry.emphasis))[0]
        assert grades[entry.artifact].probabilities == pytest.approx(said.tolist(), abs=1e-5)


def test_a_site_goes_on_from_a_weights_folder_to_the_next_by_one_command(
    run: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    assert main(["export", "--data", str(data), "--runs", str(run), "--out", str(before)]) == 0
    command = ["fit", "--data", str(data), "--init", str(before), "--config", "site", "--epochs", "0"]
    named = ["--contrast", "T1w", "--contrast", "T2w"]
    assert main([*command, "--out", str(tmp_path / "run"), "--export", str(after), *named]) == 0
    assert (read_manifest(before).contrasts, read_manifest(after).contrasts) == ({"T2w"}, {"T1w", "T2w"})
    assert [entry.width for entry in read_manifest(after).members] == [2] * 7, "what it goes on from, without a word"
    assert "starts from chance" not in caplog.text
    image = np.ones(INPUT_SHAPE, np.float32)
    old, new = (Ensemble.load(folder, "cpu", 1).logits(image) for folder in (before, after))
    for artifact in Artifact:
        np.testing.assert_allclose(old[artifact], new[artifact], atol=1e-5)


def test_what_is_kept_can_lie_between_the_start_and_what_was_learned(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "log_loss", lambda *_: 0.5)  # a tie: the last epoch is kept
    assert main(["export", "--data", str(data), "--runs", str(run), "--out", str(tmp_path / "weights")]) == 0
    start = load_file(tmp_path / "weights" / "motion.safetensors")
    command = ["fit", "--data", str(data), "--artifact", "Motion", *TINY]
    kept = {}
    for share in (0, 0.5):
        config, out = tmp_path / f"{share}.toml", tmp_path / f"run-{share}"
        config.write_text(f"start_share = {share}\n")
        options = ["--config", str(config), "--out", str(out), "--init", str(tmp_path / "weights")]
        assert main([*command, *options]) == 0
        kept[share] = load_file(out / "Motion.safetensors")
    for name, learned in kept[0].items():
        if learned.is_floating_point():
            between = (learned.float() + start[name].float()) / 2
            torch.testing.assert_close(kept[0.5][name].float(), between, rtol=2e-3, atol=1e-3)
    assert not torch.equal(kept[0]["severity.weight"], kept[0.5]["severity.weight"])
    assert main([*command, "--config", str(config), "--out", str(tmp_path / "none")]) == 2
    assert "give it a weights folder" in capsys.readouterr().err


def test_a_member_starts_as_the_shared_model(data: Path) -> None:
    torch.manual_seed(0)
    shared = Shared("compact-resnet", 2).eval()
    images = torch.rand(2, 1, 20, 32, 32)
    with torch.no_grad():
        severity, plane = shared(images)
        for index, artifact in enumerate(Artifact):
            output = shared.member(artifact, new_member(FitConfig(width=2))).eval()(images)
            torch.testing.assert_close(output.severity, severity[:, :, index])
            torch.testing.assert_close(output.plane, plane)


def test_a_member_of_another_encoder_starts_from_chance_and_no_shared_one_is_trained_for_it(
    data: Path, tmp_path: Path
) -> None:
    config = tmp_path / "own.toml"
    config.write_text('shared_epochs = 1\n[members.Banding]\nencoder = "plane-profiles"\nwidth = 2\n')
    command = ["fit", "--data", str(data), "--out", str(tmp_path / "run"), "--config", str(config), *TINY]
    assert main([*command, "--artifact", "Banding"]) == 0
    assert json.loads((tmp_path / "run/Banding.json").read_text())["encoder"] == "plane-profiles"
    assert not (tmp_path / "run/shared.safetensors").exists()


def test_a_loss_that_is_no_number_is_told_and_not_trained_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = Member.forward

    def broken(self: Member, images: torch.Tensor) -> Output:
        return forward(self, images * (torch.nan if self.training else 1))

    monkeypatch.setattr(Member, "forward", broken)
    command = ["fit", "--data", str(data), "--out", str(tmp_path / "run"), "--artifact", "Motion", *TINY]
    assert main(command) == 2
    assert "no longer a number; set bf16 = false" in " ".join(capsys.readouterr().err.split())


def test_a_member_that_sees_scans_without_their_background_is_validated_on_such_too(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated, graded = [], loop.severity_logits

    def severity_logits(model: Member, severity: Any, scans: Inputs, *, bf16: bool) -> NDArray[np.float32]:
        validated.append(scans)
        return graded(model, severity, scans, bf16=bf16)

    monkeypatch.setattr(loop, "severity_logits", severity_logits)
    config = tmp_path / "air.toml"
    config.write_text("emptied = 0.5\n")
    command = ["fit", "--data", str(data), "--out", str(tmp_path / "run"), "--artifact", "Noise", *TINY]
    assert main([*command, "--config", str(config)]) == 0
    scans = validated[-1].images
    half = len(scans) // 2
    assert len(scans) == 2 * half > 0
    assert all(np.count_nonzero(air) < np.count_nonzero(scan) for scan, air in zip(scans, scans[half:], strict=False))


def test_a_member_is_calibrated_on_scans_changed_as_training_changed_some_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(write_chance_weights(tmp_path / "run", tmp_path))
    both: dict[str, object] = {"emptied": 0.5, "sharpness_jitter": 0.5}
    ways = {Artifact.NOISE: both, Artifact.ZIPPER: {"emptied": 0.5}, Artifact.MOTION: both}
    members = [entry.model_copy(update={"training": ways.get(entry.artifact, {})}) for entry in manifest.members]
    manifest = manifest.model_copy(update={"members": tuple(members)})
    labels = tuple(int(artifact is Artifact.NOISE) for artifact in Artifact)
    scans = [Scan(tmp_path / f"{number}.nii.gz", "A", Plane.AXIAL, labels) for number in range(3)]
    image = network_input(phantom.head(np.random.default_rng(1), Plane.AXIAL)).astype(np.float16)
    seen: list[int] = []

    def fitted_calibration(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> Calibration:
        assert len(logits) == len(truth)
        seen.append(len(truth))
        return Calibration(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    monkeypatch.setattr("train.export.fitted_calibration", fitted_calibration)
    calibrated(manifest, Ensemble.load(tmp_path, "cpu", 1), inputs(scans, [image] * 3), tmp_path)
    assert seen == [6, 6, 3, 3, 9, 3, 3]  # a sharper scan is noisier


def test_the_same_seed_gives_the_same_member(data: Path, tmp_path: Path) -> None:
    command = ["fit", "--data", str(data), "--artifact", "Motion", *TINY, "--seed", "5", "--batching", "standard"]
    for name in ("a", "b"):
        assert main([*command, "--out", str(tmp_path / name)]) == 0
    first, second = (load_file(tmp_path / name / "Motion.safetensors") for name in ("a", "b"))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not (tmp_path / "a" / "Noise.safetensors").exists()


def test_a_later_run_goes_on_from_an_earlier_ones_split_and_encoder(run: Path, data: Path, tmp_path: Path) -> None:
    command = ["fit", "--data", str(data), "--artifact", "Zipper", "--width", "2", "--epochs", "0", "--seed", "9"]
    assert main([*command, "--out", str(tmp_path), "--start", str(run)]) == 0
    assert (tmp_path / "split.json").read_text() == (run / "split.json").read_text()
    member, shared = load_file(tmp_path / "Zipper.safetensors"), load_file(run / "shared.safetensors")
    encoder = {key: tensor for key, tensor in shared.items() if key.startswith("encoder.")}
    assert all(torch.equal(tensor.to(member[key].dtype), member[key]) for key, tensor in encoder.items())


def test_the_baseline_without_a_network_is_measured_on_the_same_scans(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--data", str(data), "--forest", "--json"]
    assert main([*command, "--runs", str(run)]) == 0
    found = json.loads(capsys.readouterr().out)
    part_of = json.loads((run / "split.json").read_text())
    assert {its["subjects"] for its in found.values()} == {list(part_of.values()).count("test")}
    assert len(found["Noise"]["challenge"]) == 15
    assert main(command) == 2
    assert "name it with --runs" in capsys.readouterr().err


class Killed(Exception):  # noqa: N818 - what happened
    """The process is gone."""


def test_a_run_that_is_killed_goes_on_and_ends_as_one_that_was_not(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "two.toml"
    config.write_text("shared_epochs = 2\nbatching = 'standard'\nblocks = 4\nloss = 'corn'\nschedule = 'cosine'\n")
    command = ["fit", "--data", str(data), "--artifact", "Motion", "--config", str(config), "--width", "2"]
    assert main([*command, "--epochs", "2", "--out", str(tmp_path / "whole")]) == 0
    measure, measured = loop.severity_logits, []

    def measured_and_killed(*args: object, **kwargs: object) -> object:
        measured.append(1)
        if len(measured) in (2, 5):  # in the shared encoder's second epoch, and in the member's first
            raise Killed
        return measure(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "severity_logits", measured_and_killed)
    again = [*command, "--epochs", "2", "--out", str(tmp_path / "killed")]
    for _ in range(2):
        with pytest.raises(Killed):
            main(again)
    assert main(again) == 0
    assert len(measured) == 7, "two shared epochs and three of the member, and two that were begun in vain"
    for name in ("shared", "Motion"):
        whole, killed = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "killed"))
        assert all(torch.equal(whole[key], killed[key]) for key in whole)
    records = [json.loads((tmp_path / run / "Motion.json").read_text()) for run in ("whole", "killed")]
    assert records[0] == records[1]
    assert main(again) == 0
    assert len(measured) == 7, "nothing is left to do"
    assert main([*again, "--epochs", "0"]) == 0
    assert len(measured) == 8, "other epochs are another member, from the same shared encoder"


def test_the_epoch_of_the_lowest_log_loss_is_kept_and_the_log_tells_the_time_left(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    command = ["fit", "--data", str(data), "--out", str(tmp_path), "--artifact", "Zipper", "--width", "2"]
    assert main([*command, "--epochs", "4"]) == 0
    left = re.findall(r"epoch_done artifact=Zipper epoch=\d .* seconds=\d+ left=(\S+)", caplog.text)
    assert (len(left), left[0], left[-1]) == (5, "?", "00:00:00")
    assert all(re.fullmatch(r"00:00:\d\d", each) for each in left[1:])
    with (tmp_path / "Zipper.epochs.csv").open(newline="") as file:
        losses = [float(row["log_loss"]) for row in csv.DictReader(file)]
    training = json.loads((tmp_path / "Zipper.json").read_text())["training"]
    assert len(losses) == 5  # the one before the first step counts
    assert training["best_epoch"] == min(range(5), key=lambda epoch: (losses[epoch], -epoch))
    assert training["validation_log_loss"] == min(losses)


def test_tensorboards_log_has_every_epoch_and_changes_no_weight(run: Path, data: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    command = ["fit", "--data", str(data), "--artifact", "Motion", "--width", "1", "--epochs", "1"]
    assert main([*command, "--out", str(tmp_path / "plain")]) == 0
    assert main([*command, "--out", str(tmp_path / "logged"), "--tensorboard"]) == 0
    log = reader.EventAccumulator(str(tmp_path / "logged" / "tensorboard" / "Motion")).Reload()
    assert [event.step for event in log.Scalars("macro_f1")] == [0, 1]
    assert [event.step for event in log.Scalars("loss")] == [1]
    plain, logged = (load_file(tmp_path / name / "Motion.safetensors") for name in ("plain", "logged"))
    assert all(torch.equal(plain[key], logged[key]) for key in plain)


def test_members_start_from_a_weights_folder_where_they_are_of_its_kind(
    run: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = tmp_path / "weights"
    assert main(["export", "--data", str(data), "--runs", str(run), "--out", str(weights)]) == 0
    command = ["fit", "--data", str(data), "--artifact", "Motion", "--epochs", "0", "--init", str(weights)]
    assert main([*command, "--width", "2", "--out", str(tmp_path / "same")]) == 0
    member, shipped = load_file(tmp_path / "same" / "Motion.safetensors"), load_file(weights / "motion.safetensors")
    assert all(torch.equal(member[key], tensor.to(member[key].dtype)) for key, tensor in shipped.items())
    assert "starts from chance" not in caplog.text
    assert main([*command, "--width", "1", "--out", str(tmp_path / "other")]) == 0
    assert "is compact-resnet of width 2, not compact-resnet of width 1: it starts from chance" in caplog.text


@pytest.mark.parametrize(("weight", "learned"), [(0, False), (1, True)])
def test_the_plane_is_learned_when_it_has_a_weight(
    weight: int, learned: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "log_loss", lambda *_: 0.5)  # a tie: the last epoch is kept
    config = tmp_path / "plane.toml"
    config.write_text(f"plane_weight = {weight}\nweight_decay = 0\n")
    command = ["fit", "--data", str(data), "--out", str(tmp_path), "--artifact", "Motion", "--config", str(config)]
    assert main([*command, *TINY]) == 0
    started, ended = new_member(FitConfig(width=2)).state_dict(), load_file(tmp_path / "Motion.safetensors")
    assert torch.equal(started["plane.weight"].half(), ended["plane.weight"]) is not learned
    assert not torch.equal(started["severity.weight"].half(), ended["severity.weight"])


def test_a_member_trained_with_corn_is_exported_and_graded(run: Path, data: Path, tmp_path: Path) -> None:
    out = shutil.copytree(run, tmp_path / "run")
    command = ["fit", "--data", str(data), "--artifact", "Noise", "--loss", "corn", "--seed", "3", *TINY]
    assert main([*command, "--out", str(out), "--start", str(run)]) == 0
    assert main(["export", "--data", str(data), "--runs", str(out), "--out", str(tmp_path / "weights")]) == 0
    assert [entry.ordinal for entry in read_manifest(tmp_path / "weights").members] == [True] + 6 * [False]
    grade = Ensemble.load(tmp_path / "weights").grade(np.ones(INPUT_SHAPE, np.float32))[Artifact.NOISE]
    assert sum(grade.probabilities) == pytest.approx(1)


def test_every_patient_is_tested_once_a_repeat_and_the_figures_are_pooled(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["fit", "--data", str(data), "--out", str(tmp_path), "--artifact", "Motion", "--width", "1"]
    command += ["--epochs", "0", "--folds", "3", "--repeats", "2"]
    fit, fitted = folds.fit_run, []

    def fit_and_killed(*args: Any, **kwargs: Any) -> None:
        fitted.append(1)
        if len(fitted) == 4:
            raise RuntimeError("killed")
        fit(*args, **kwargs)

    monkeypatch.setattr(folds, "fit_run", fit_and_killed)
    with pytest.raises(RuntimeError, match="killed"):
        main(command)
    capsys.readouterr()
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "| Motion | 2 / 3 / 3 | 3 / 2 / 3 | 3 / 3 / 2 |" in shown
    assert re.search(r"\| mean +\| \*\*", shown)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report.keys() == {"members", "forests"}
    for found in report.values():
        assert (found["Motion"]["subjects"], found["Motion"]["scans"]) == (8, 2 * 24)
    truth = [found["Motion"]["scans_by_severity"] for found in report.values()]
    assert truth == 2 * [[16, 16, 16]]
    for repeat in (1, 2):
        rows = [p.read_text().splitlines()[1:] for p in tmp_path.glob(f"repeat-{repeat}/fold-*/predictions.csv")]
        assert len(rows) == 3
        assert len({line.split(",")[0] for lines in rows for line in lines}) == 24


def test_members_of_cubes_are_graded_on_cubes(tmp_path: Path) -> None:
    config = FitConfig(encoder="densenet169", width=2, preprocessing="cube-1", variation="half-turn")
    for artifact in Artifact:
        save_file(new_member(config).state_dict(), tmp_path / f"{artifact}.safetensors")
        record = {"artifact": artifact, "encoder": config.encoder, "width": 2, "ordinal": False, "commit": "unknown"}
        (tmp_path / f"{artifact}.json").write_text(json.dumps(record | {"training": config.model_dump(mode="json")}))
    out, now = tmp_path / "weights", datetime(2026, 1, 1, tzinfo=UTC)
    write_weights(tmp_path, out, name="cubes", severity_definition="raters", contrasts=["T2w"], created=now)
    ensemble = Ensemble.load(out)
    assert ensemble.preprocessing == "cube-1"
    with pytest.raises(ValueError, match="shape"):
        ensemble.grade(np.zeros(INPUT_SHAPE, np.float32))
    assessment = assess_volume(phantom.head(np.random.default_rng(60), Plane.AXIAL), ensemble)
    assert set(assessment.grades) == set(Artifact)


def test_a_forest_is_fitted_and_cross_validated_by_the_same_command(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", "--data", str(data), "--out", str(tmp_path), "--config", "fetmrqc", "--artifact", "Noise"]
    assert main(command) == 0
    assert re.search(r"\| Noise +\| \*\*", capsys.readouterr().out)
    assert main([*command, "--folds", "3"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["members"] == report["forests"]
    assert report["members"]["Noise"]["macro_f1"]["value"] > 0.8  # the folder's severities are its noise


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batching", "random"], "batching"),
        (["--encoder", "unknown-net"], "unknown-net"),
        (["--config", "absent.toml"], "absent.toml cannot be read"),
        (["--start", "absent"], "name a run's folder"),
        (["--loss", "hinge"], "loss"),
        (["--init", "absent"], "name a folder made by"),
        (["--export", "new", "--artifact", "Noise"], "--export needs all seven members"),
        (["--export", "new", "--contrast", "T3w"], "T3w is none of T1w, T2w"),
        (["--folds", "9"], "--folds 9 does not fit 8 patients"),
        (["--folds", "3", "--start", "absent"], "leave one of them out"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_code_2(
    data: Path, tmp_path: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--data", str(data), "--out", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_missing_data_and_missing_members_are_named(run: Path, data: Path, tmp_path: Path) -> None:
    assert main(["fit", "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert main(["export", "--data", str(data), "--runs", str(tmp_path), "--out", str(tmp_path / "w")]) == 2
    assert main(["fit"]) == 2


def test_a_checkpoint_that_finds_no_room_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:  # as safetensors says it
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("train.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space left") as raised:
        save_whole({"weight": torch.ones(1)}, tmp_path / "full.safetensors")
    assert raised.value.errno == errno.ENOSPC


def test_a_full_disk_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert main([], full) == 1
    assert (
        capsys.readouterr().err
        == "The disk is full; make room and give the command again: it goes on from what is there.\n"
    )
    with pytest.raises(OSError, match="No space"):
        main(["--debug"], full)
