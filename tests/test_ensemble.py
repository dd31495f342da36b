"""The ensemble: what it refuses to load, and the laws of its grades."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from chance_weights import write_chance_weights
from numpy.typing import NDArray
from safetensors.torch import load_file

from qcnode.artifacts import Artifact, Plane
from qcnode.ensemble import networks
from qcnode.ensemble.calibration import Calibration, probabilities
from qcnode.ensemble.model import Member
from qcnode.ensemble.runtime import Ensemble
from qcnode.ensemble.weights import read_manifest, shipped_folder
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import INPUT_SHAPE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven members that chance made."""
    return write_chance_weights(tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("weights"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "weights"))


def image(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(INPUT_SHAPE, np.float32) * 2


def edited(folder: Path, **changes: object) -> Path:
    """The folder with these values in its manifest's first member."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["members"][0] |= changes
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_every_artifact_gets_a_severity_and_probabilities_that_sum_to_one(folder: Path) -> None:
    ensemble = Ensemble.load(folder, device="cpu", threads=1)
    assert ensemble.id.startswith("chance-")
    assert ensemble.contrasts == {"T2w"}
    grades = ensemble.grade(image(0))
    assert list(grades) == list(Artifact)
    for grade in grades.values():
        assert sum(grade.probabilities) == pytest.approx(1)
        assert grade.severity == int(np.argmax(grade.probabilities))
    assert ensemble.plane(image(0)) in Plane


def test_a_grade_depends_on_its_scan_alone(folder: Path) -> None:
    ensemble = Ensemble.load(folder, device="cpu", threads=1)
    first = ensemble.grade(image(1))
    other = ensemble.grade(image(2))
    assert ensemble.grade(image(1)) == first
    assert other != first
    assert Ensemble.load(folder, device="cpu").grade(np.asfortranarray(image(1))) == first


def test_a_scan_is_graded_alone_as_it_is_among_others(folder: Path) -> None:
    entry = read_manifest(folder).members[0]
    member = Member(entry.encoder, entry.width).eval()
    both = torch.stack([torch.from_numpy(image(seed))[None] for seed in (4, 5)])
    with torch.no_grad():
        together = member(both).severity
        alone = torch.cat([member(one[None]).severity for one in both])
    assert alone.shape == together.shape
    assert torch.allclose(alone, together, atol=1e-4)


def test_the_ensemble_grades_as_its_members_do(folder: Path) -> None:
    entry = read_manifest(folder).members[3]
    member = Member(entry.encoder, entry.width).eval()
    member.load_state_dict({k: t.float() for k, t in load_file(folder / entry.file).items()})
    with torch.no_grad():
        logits = member(torch.from_numpy(image(3))[None, None]).severity[0].numpy()
    grade = Ensemble.load(folder, device="cpu").grade(image(3))[entry.artifact]
    assert grade.probabilities == pytest.approx(
        tuple(probabilities(logits, Calibration(entry.temperature, entry.bias))), abs=1e-4
    )


def test_a_volume_of_another_size_is_a_programming_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="shape"):
        Ensemble.load(folder, device="cpu").grade(np.zeros((40, 128, 128), np.float32))


def test_changed_weights_are_refused_before_they_are_read(copy: Path) -> None:
    path = copy / "motion.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ConfigError, match=r"motion\.safetensors is not the file.*copy the whole weights folder again"):
        Ensemble.load(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "zipper.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"zipper\.safetensors cannot be read"):
        Ensemble.load(copy)
    with pytest.raises(ConfigError, match=r"manifest\.json cannot be read"):
        Ensemble.load(copy / "elsewhere")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"artifact": "Motion"}, "exactly one member"),
        ({"preprocessing": "grid-0"}, "trained on grid-0"),
        ({"input_size": [48, 128, 128]}, "trained on"),
        ({"classes": ["severe", "moderate", "none"]}, "another order"),
        ({"file": "../noise.safetensors"}, r"members\.0\.file"),
        ({"colour": "red"}, "colour"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(copy: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_manifest(edited(copy, **changes))


def test_weights_of_another_encoder_are_refused(copy: Path) -> None:
    with pytest.raises(ConfigError, match=r"noise\.safetensors does not fit its encoder"):
        Ensemble.load(edited(copy, width=1))
    with pytest.raises(ConfigError, match="no encoder"):
        Ensemble.load(edited(copy, encoder="unknown-net"))


def test_a_device_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match='no device "cuda:99"'):
        Ensemble.load(folder, device="cuda:99")


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_temperature_changes_how_sure_and_a_bias_which(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 3)) * 5
    found = probabilities(logits, Calibration(temperature))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal(found.argmax(axis=1), logits.argmax(axis=1))
    np.testing.assert_allclose(probabilities(logits + 1000, Calibration(temperature)), found, atol=1e-9)
    assert (probabilities(logits, Calibration(temperature, (99.0, 0.0, 0.0))).argmax(axis=1) == 0).all()


def test_the_shipped_ensemble_covers_what_it_was_measured_to_grade_alike() -> None:
    assert read_manifest(shipped_folder()).contrasts == {"T1w", "T2w"}


def test_every_shipped_member_beats_the_commonest_severity_on_unseen_subjects() -> None:
    manifest = read_manifest(shipped_folder())
    for entry in manifest.members:
        assert entry.figures is not None
        assert entry.figures.macro_f1.low > entry.figures.majority_macro_f1, entry.artifact
    assert Ensemble.load(threads=1).id == manifest.id


def test_line_profiles_do_not_care_along_which_axis_the_line_runs() -> None:
    torch.manual_seed(0)
    lines = networks.LineProfiles(4).eval()
    image = torch.rand(2, 1, 6, 20, 20)
    with torch.no_grad():
        features, turned = lines(image), lines(image.transpose(3, 4))
    assert features.shape == (2, lines.features)
    torch.testing.assert_close(features, turned)


def test_a_line_of_one_voxel_is_a_peak_in_its_profile() -> None:
    image = 0.1 * torch.rand(6, 20, 20)
    image[:, :, 7] += 1
    across_columns, across_rows = networks._profiles(image)
    assert across_columns[0].argmax(1).tolist() == [7] * 6
    assert across_rows[0].std() < 0.1 * across_columns[0].std()


def test_moments_do_not_change_when_the_head_is_mirrored_and_do_when_it_is_shifted() -> None:
    maps = torch.zeros(1, 1, 8, 16, 16)
    maps[..., 2:5, 4:9, 6:10] = torch.rand(3, 5, 4)
    moments = networks.Moments()
    torch.testing.assert_close(moments(maps), moments(maps.flip(2, 4)))
    assert (moments(maps) - moments(maps.roll(2, dims=3)))[0, 2:].abs().max() > 0.01


def test_an_encoder_gives_the_number_of_features_that_it_states() -> None:
    encoder, channels = networks.encoder("compact-resnet", 2)
    assert encoder.eval()(torch.rand(1, 1, 8, 32, 32)).shape == (1, channels)


@pytest.mark.parametrize("threads", [2, 3, 20])
def test_how_many_members_grade_at_once_changes_no_grade(folder: Path, threads: int) -> None:
    alone = Ensemble.load(folder, device="cpu", threads=1).logits(image(4))
    together = Ensemble.load(folder, device="cpu", threads=threads).logits(image(4))
    assert list(together) == list(alone), "each artifact has its own member's logits"
    for artifact, logits in together.items():
        np.testing.assert_allclose(logits, alone[artifact], rtol=1e-4, atol=1e-5)
