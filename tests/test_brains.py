"""Sources are numbered by subject, and become heads with a low-field scan's tissue order, scalp and size."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from qcnode.artifacts import Plane
from qcnode.errors import ConfigError
from train.simulation.brains import anatomy, phantoms, pose_in_file, sources
from train.simulation.contrasts import head
from train.simulation.scans import DIRECTIONS, CleanScan, Grid, Pose, clean_scan, moved, render


def _ellipsoid(shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)) < 1


def write_brains(folder: Path) -> Path:
    """A label map and a skull-stripped image of nested ellipsoids, and copies that only their names tell apart."""
    shape, centre = (60, 72, 68), (30, 36, 42)
    labels = np.zeros(shape, np.uint16)
    for label, radii in ((511, (28, 34, 25)), (515, (26, 32, 23)), (24, (24, 30, 21)), (3, (22, 28, 19))):
        labels[_ellipsoid(shape, centre, radii)] = label
    labels[_ellipsoid(shape, centre, (16, 22, 14))] = 2
    labels[_ellipsoid(shape, centre, (5, 8, 5))] = 4
    labels[_ellipsoid(shape, (30, 22, 27), (8, 6, 5))] = 8
    labels[28:33, 28:33, 2:26] = 16  # brainstem, and the cord far below it
    stripped = np.zeros(shape, np.uint8)
    for label, intensity in ((24, 60), (3, 120), (2, 190), (4, 50), (8, 125)):
        stripped[labels == label] = intensity
    for name, array in (
        ("labelmaps/training_seg_01", labels),
        ("t1_skullstripped/sub-01_T1w", stripped),
        ("children_skullstripped/sub-0001_ses-V01_T1w", stripped),
        ("children_skullstripped/sub-0001_ses-V02_T1w", stripped),
        ("children_templates/Template-Month24-T1w", stripped[::-1, ::-1]),  # it looks backwards, as the real one does
        ("children_templates/Template-Month24-T2w", np.where(stripped > 0, 250 - stripped, 0).astype(np.uint8)),
    ):
        path = folder / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.diag([2.5, 2.5, 2.5, 1])), path)
    return folder


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_brains(tmp_path_factory.mktemp("brains"))


def test_files_of_one_subject_share_its_number(brains: Path) -> None:
    by_name = {source.path.name: source.patient for source in sources(brains) if source.path}
    assert by_name["sub-0001_ses-V01_T1w.nii.gz"] == by_name["sub-0001_ses-V02_T1w.nii.gz"]
    assert by_name["Template-Month24-T1w.nii.gz"] == by_name["Template-Month24-T2w.nii.gz"]
    assert len(set(by_name.values())) == 4


def test_an_image_that_lies_there_twice_is_one_subject(tmp_path: Path) -> None:
    for name in ("Month0", "Month3", "Month6"):
        (tmp_path / "children_templates").mkdir(exist_ok=True)
        (tmp_path / "children_templates" / f"Template-{name}-T1w.nii.gz").touch()
    assert {source.subject: source.patient for source in sources(tmp_path)} == {
        "Template-Month0": 1,
        "Template-Month3": 1,
        "Template-Month6": 3,  # the others keep their numbers
    }


def test_phantoms_do_not_share_numbers_with_brains(brains: Path) -> None:
    numbers = [source.patient for source in phantoms(3)]
    assert len(set(numbers)) == 3
    assert not set(numbers) & {source.patient for source in sources(brains)}


def test_a_folder_without_brains_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="labelmaps"):
        sources(tmp_path)


def test_a_head_that_nods_in_its_file_is_set_upright(tmp_path: Path) -> None:
    straight, nodding, missing = (write_brains(tmp_path / name) / "labelmaps" for name in "snm")
    path = nodding / "training_seg_01.nii.gz"
    labels = ndimage.rotate(np.pad(nib.load(path).get_fdata(), 15), 25, axes=(1, 2), reshape=False, order=0)
    nib.save(nib.Nifti1Image(labels.astype(np.uint16), np.diag([2.5, 2.5, 2.5, 1])), path)
    one, other = (sources(folder.parent)[0] for folder in (straight, nodding))
    assert abs(pose_in_file(other)[0] - pose_in_file(one)[0]) == pytest.approx(25, abs=2)
    sizes = [
        [np.ptp(np.flatnonzero(anatomy(s).brain.any(axis=axes))) for axes in ((0, 2), (0, 1))] for s in (one, other)
    ]
    np.testing.assert_allclose(*sizes, atol=4)
    (missing.parent / "children_templates/Template-Month24-T1w.nii.gz").unlink()
    with pytest.raises(ConfigError, match="upright"):
        anatomy(sources(missing.parent)[0])


def test_the_spinal_cord_is_not_brain(brains: Path) -> None:
    labelled = anatomy(sources(brains)[0])
    lowest = int(np.flatnonzero(labelled.brain.any(axis=(0, 1)))[0])
    assert lowest > int(np.flatnonzero((labelled.codes == 5).any(axis=(0, 1)))[0]) + 10  # 5: the brainstem's group


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("weighting", "brighter", "darker"), [("T2w", 1, 2), ("T2w", 2, 3), ("T1w", 3, 2), ("T1w", 2, 1), ("FLAIR", 2, 1)]
)
def test_tissues_follow_the_weighting(brains: Path, number: int, weighting: str, brighter: int, darker: int) -> None:
    source = anatomy(sources(brains)[number])
    signal = head(source, weighting, 170.0, np.random.default_rng(3)).channels[0].numpy()
    inside = source.brain
    assert signal[inside & (source.tissue == brighter)].mean() > 1.1 * signal[inside & (source.tissue == darker)].mean()


def test_a_stripped_brain_gets_a_dark_skull_and_a_bright_scalp(brains: Path) -> None:
    source = anatomy(sources(brains)[1])
    made = head(source, "T2w", 140.0, np.random.default_rng(4))
    x, y, z = (round(float(c)) for c in made.centre)
    profile = made.channels[0, x, y, z:].numpy()  # from the centre to the vertex, and out
    outside = profile[int(np.flatnonzero(source.brain[x, y, z:])[-1]) + 1 :]
    skull = int(np.argmin(outside[: len(outside) // 2]))
    assert outside[skull] < 0.25 < outside[skull:].max()


def test_a_head_has_the_size_that_was_asked_for(brains: Path) -> None:
    for length_mm in (114.0, 180.0):
        made = head(anatomy(sources(brains)[0]), "T2w", length_mm, np.random.default_rng(5))
        extent = np.ptp(made.brain_points_mm[:, 1])
        assert extent == pytest.approx(length_mm, rel=0.08)


@pytest.mark.parametrize("plane", list(Plane))
def test_rendering_puts_the_brain_where_the_pose_says(brains: Path, plane: Plane) -> None:
    made = head(anatomy(sources(brains)[0]), "T2w", 110.0, np.random.default_rng(6))
    scan = CleanScan(made, Grid(plane, (30, 60, 60), (5.0, 3.0, 3.0)), Pose((0, 0, 0), (0, 0, 0)), 0.3, 0.25)
    pose = Pose((12.0, -8.0, 15.0), (9.0, -14.0, 5.0))
    seen = render(scan, pose)
    where = np.argwhere(seen.brain > 0.5) @ scan.grid.affine[:3, :3].T + scan.grid.affine[:3, 3]
    expected = made.brain_points_mm @ pose.rotation.T + pose.offset_mm
    np.testing.assert_allclose(where.mean(axis=0), expected.mean(axis=0), atol=1.0)
    assert np.linalg.norm(np.cov(where.T) - np.cov(expected.T)) < 0.08 * np.linalg.norm(np.cov(expected.T))


def test_planes_are_laid_out_as_dicom_does() -> None:
    for plane in Plane:
        slices, rows, columns = DIRECTIONS[plane].T
        assert rows.tolist() == ([0, -1, 0] if plane is Plane.AXIAL else [0, 0, -1])
        assert columns.tolist() == ([0, -1, 0] if plane is Plane.SAGITTAL else [-1, 0, 0])
        assert abs(slices[{"axial": 2, "coronal": 1, "sagittal": 0}[plane.value]]) == 1


def test_moving_by_nothing_changes_nothing_and_slices_can_be_left_out(brains: Path) -> None:
    grid = Grid(Plane.CORONAL, (9, 20, 24), (5.0, 3.0, 3.0))
    signal = np.random.default_rng(7).random(grid.shape, dtype=np.float32)
    still, pose, centre = Pose((0, 0, 0), (0, 0, 0)), Pose((4, -3, 8), (2, 3, -4)), np.array([4.0, -3.0, 2.0])
    np.testing.assert_allclose(moved(signal, grid, still, centre), signal, atol=1e-5)
    np.testing.assert_allclose(moved(signal, grid, pose, centre, 4), moved(signal, grid, pose, centre)[::4], atol=1e-5)


@pytest.mark.real_data
def test_real_poses_are_found(real_data: Path) -> None:
    by_name = {source.path.name.split(".")[0]: source for source in sources(real_data / "brain") if source.path}
    nod, lean, turn = pose_in_file(by_name["training_seg_01"])
    assert nod == pytest.approx(32, abs=4)
    assert max(abs(lean), abs(turn)) < 3
    assert np.abs(pose_in_file(by_name["sub-01_T1w"])).max() < 5
    twice = [pose_in_file(by_name[f"Template-Month12-{weighting}"]) for weighting in ("T1w", "T2w")]
    np.testing.assert_allclose(*twice, atol=2)
    assert abs(twice[0][2]) > 170, "its face is where the file's axes have the back of the head"


@pytest.mark.real_data
@pytest.mark.parametrize("kind", ["labelmap", "adult", "child"])
def test_a_real_source_becomes_a_scan(real_data: Path, kind: str) -> None:
    source = next(source for source in sources(real_data / "brain") if source.kind == kind)
    generator = np.random.default_rng(8)
    scan = clean_scan(head(anatomy(source), "T2w", 150.0, generator), Plane.AXIAL, generator)
    seen = render(scan, scan.pose)
    litres = float(seen.brain.sum()) * np.prod(scan.grid.spacing_mm) / 1e6
    assert 0.5 < litres < 1.6
    assert (seen.signal * seen.grey).sum() / seen.grey.sum() > (seen.signal * seen.white).sum() / seen.white.sum()
    head_share = float((seen.signal[seen.brain < 0.1] > 0.2 * seen.signal[seen.brain > 0.5].mean()).mean())
    assert head_share > 0.03  # scalp, face and neck around the brain
