"""Motion drawn onto a finished scan: as much of it as the severity says, of the kinds that a head makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcnode.artifacts import Severity
from qcnode.imaging.phantom import mix_poses
from train.sampling import motion
from train.simulation.severity import MOTION_NRMS, OutOfContract

SLICE_MM = 5.0


def a_scan() -> tuple[np.ndarray, np.ndarray]:
    """A patchy ball in air, and where it is."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (24, 96, 88)], indexing="ij")
    brain = z**2 + y**2 + x**2 < 0.6
    patches = np.sin(14 * x) * np.cos(11 * y) * np.cos(5 * z) > 0
    return np.where(brain, 0.6 + 0.9 * patches, 0.02).astype(np.float32), brain


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("seed", range(4))
def test_the_difference_to_the_unmoved_scan_is_the_severitys(severity: Severity, seed: int) -> None:
    image, brain = a_scan()
    found = motion._mixed(
        torch.from_numpy(image), torch.from_numpy(brain), severity, np.random.default_rng(seed), SLICE_MM
    ).abs()
    difference = np.sqrt(np.mean((found.numpy()[brain] - image[brain]) ** 2) / np.mean(image[brain] ** 2))
    low, high = MOTION_NRMS[severity]
    assert low <= difference <= high


@pytest.mark.parametrize("of_brain", [slice(0, 2), slice(22, 24)])
def test_a_brain_that_is_seen_in_few_slices_is_measured_there(of_brain: slice) -> None:
    image, _ = a_scan()
    image = np.broadcast_to(image[12], image.shape).copy()
    brain = np.zeros(image.shape, bool)
    brain[of_brain, 30:60, 30:60] = True
    assert not brain[motion._EVERY // 2 :: motion._EVERY].any()
    moved = motion.moved(image, brain, Severity.SEVERE, np.random.default_rng(1), apart=3, lies_askew=False)
    assert np.abs(moved - image)[brain].mean() > 0.05
    with pytest.raises(OutOfContract, match="no brain"):
        motion.moved(image, np.zeros(image.shape, bool), Severity.SEVERE, np.random.default_rng(1))


def test_a_head_that_lies_as_it_lay_is_left_as_it_is() -> None:
    image = torch.from_numpy(a_scan()[0])
    np.testing.assert_allclose(motion._posed(image, np.zeros(6), SLICE_MM), image, atol=1e-4)
    some = torch.tensor([3, 9])
    pose = np.array([3.0, 2.0, -1.0, 4.0, 1.0, -2.0])
    of_all = motion._posed(image, pose, SLICE_MM)
    np.testing.assert_allclose(motion._posed(image, pose, SLICE_MM, some), of_all[some], atol=1e-5)


def test_a_head_is_turned_and_shifted_by_what_the_pose_says() -> None:
    """One voxel: 10 mm across is two slices, 8 mm down five rows; a quarter turn exchanges rows and columns."""
    image = torch.zeros((9, 41, 41))
    image[4, 20, 26] = 1.0

    def brightest(pose: list[float], slice_mm: float = SLICE_MM) -> tuple[int, ...]:
        posed = motion._posed(image, np.array(pose), slice_mm).numpy()
        return tuple(int(i) for i in np.unravel_index(posed.argmax(), image.shape))

    assert brightest([0, 0, 0, 10, 0, 0]) == (2, 20, 26)
    assert brightest([0, 0, 0, 30, 0, 0], 3 * SLICE_MM) == (2, 20, 26)
    assert brightest([0, 0, 0, 0, 8, 0]) == (4, 15, 26)
    assert brightest([0, 0, 0, 0, 0, 8]) == (4, 20, 21)
    assert brightest([90, 0, 0, 0, 0, 0]) in {(4, 26, 20), (4, 14, 20)}


@pytest.mark.parametrize("axis", [1, 2])
def test_lines_are_filled_as_the_simulator_mixes_them(axis: int) -> None:
    image = torch.from_numpy(a_scan()[0])
    poses = np.array([[0, 0, 0, 0, 0, 0], [4, 1, 2, 1, 3, -2]], float)
    state = (np.arange(image.shape[axis]) > 50).astype(np.int64)
    found = motion._filled(image, poses, state, axis, torch.arange(len(image)), SLICE_MM)
    expected = mix_poses([motion._posed(image, pose, SLICE_MM).numpy() for pose in poses], state, axis)
    np.testing.assert_allclose(found, expected, atol=1e-4)
