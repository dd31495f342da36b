"""A synthetic head looks like a head, moves as heads move, and is sent as a Swoop sends it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from qcnode.artifacts import Plane
from qcnode.imaging import phantom
from qcnode.imaging.volume import Volume


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("plane", Plane)
def test_a_head_is_reproducible_and_in_its_plane(plane: Plane) -> None:
    first, second = phantom.head(rng(), plane), phantom.head(rng(), plane)
    assert np.array_equal(first.array, second.array)
    assert np.array_equal(first.affine, second.affine)
    assert first.plane is plane
    assert first.array.shape == phantom.MATRIX[plane]
    assert first.array.dtype == np.float32
    assert first.spacing_mm[0] == pytest.approx(5.0)
    assert 1.5 <= first.spacing_mm[1] <= 1.7


@pytest.mark.parametrize("maturity", [0.0, 0.4, 1.0])
def test_tissue_stands_out_of_rician_noise_of_level_0(maturity: float) -> None:
    volume, brain = phantom.head_with_brain(rng(), Plane.AXIAL, maturity)
    signal = volume.array[brain].mean()
    corner = volume.array[:, :12, :12]
    sigma = corner.mean() / np.sqrt(np.pi / 2)  # the mean of a Rayleigh distribution
    assert 0.015 <= sigma / signal <= 0.05
    assert corner.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.1)
    assert volume.array[brain].std() / signal > 0.1  # grey, white and fluid differ


def test_brains_grow() -> None:
    litres = [
        brain.sum() * np.prod(volume.spacing_mm) / 1e6
        for volume, brain in (phantom.head_with_brain(rng(3), Plane.AXIAL, m) for m in (0.0, 0.4, 1.0))
    ]
    assert litres == sorted(litres)
    assert 0.3 <= litres[0] <= 0.75
    assert 1.1 <= litres[2] <= 2.0


def test_no_motion_is_the_identity() -> None:
    image = rng().normal(size=(4, 30, 25)).astype(np.float32)
    for axis, lines in ((1, 30), (2, 25)):
        mixed = phantom.mix_poses([image, image + 1], np.zeros(lines, int), axis)
        np.testing.assert_allclose(mixed, image, atol=1e-5)


def test_mixed_lines_are_those_of_each_pose() -> None:
    one, other = rng(1).normal(size=(2, 3, 16, 12)).astype(np.float32)
    pose_of_line = np.zeros(16, int)
    pose_of_line[8] = 1  # frequency 0
    mixed = phantom.mix_poses([one, other], pose_of_line, 1)
    np.testing.assert_allclose(mixed.mean(axis=1), other.mean(axis=1), atol=1e-5)
    pose_of_line[:] = 1
    np.testing.assert_allclose(phantom.mix_poses([one, other], pose_of_line, 1), other, atol=1e-5)


@pytest.mark.parametrize(("seed", "plane"), list(enumerate(Plane)))
def test_a_moved_head_moved_severely(seed: int, plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def remember(moved: np.ndarray, sigma: float, generator: np.random.Generator) -> np.ndarray:
        seen["moved"] = np.abs(moved)
        return seen["moved"]

    subject = phantom._Subject.draw(rng(seed), plane, None)
    monkeypatch.setattr(phantom, "add_noise", remember)
    volume = phantom.moved_head(rng(seed), plane)
    assert volume.plane is plane
    difference = phantom.motion_difference(subject.scan(), seen["moved"], subject.brain)
    assert phantom.SEVERE_MOTION[0] <= difference <= phantom.SEVERE_MOTION[1]


@pytest.fixture(scope="module")
def volume() -> Volume:
    return phantom.head(rng(), Plane.CORONAL)


def test_a_swoop_series_is_one_enhanced_object(volume: Volume) -> None:
    ds = dcmread(BytesIO(phantom.to_bytes(phantom.swoop_series(volume, patient_id="P1", generator=rng()))))
    assert ds.SOPClassUID == EnhancedMRImageStorage
    assert ds.Manufacturer == "Hyperfine Research"
    assert ds.NumberOfFrames == len(ds.PerFrameFunctionalGroupsSequence) == len(volume.array)
    assert ds.SharedFunctionalGroupsSequence[0].MRImageFrameTypeSequence[0].AcquisitionContrast == "T2"
    for keyword in ("AccessionNumber", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"):
        assert keyword not in ds
    np.testing.assert_array_equal(ds.pixel_array, np.rint(volume.array))


def test_a_classic_series_is_one_object_a_slice(volume: Volume) -> None:
    series = phantom.classic_series(volume, patient_id="P1", generator=rng())
    assert len(series) == len(volume.array)
    assert {ds.SOPClassUID for ds in series} == {MRImageStorage}
    assert len({ds.SOPInstanceUID for ds in series}) == len(series)
    assert len({(ds.StudyInstanceUID, ds.SeriesInstanceUID) for ds in series}) == 1
    positions = [ds.ImagePositionPatient for ds in series]
    steps = np.linalg.norm(np.diff(np.array(positions, float), axis=0), axis=1)
    np.testing.assert_allclose(steps, 5.0, atol=1e-5)


def test_the_same_generator_gives_the_same_bytes(volume: Volume) -> None:
    first, second = (phantom.to_bytes(phantom.swoop_series(volume, patient_id="P", generator=rng(2))) for _ in range(2))
    assert first == second
    other = phantom.to_bytes(phantom.swoop_series(volume, patient_id="P", generator=rng(3)))
    assert other != first
