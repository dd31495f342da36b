"""Instances become the one right volume, or a sentence that names the fault."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from qcnode.artifacts import Plane
from qcnode.errors import Excluded, NotAssessable, PermanentError
from qcnode.imaging.phantom import (
    classic_series,
    grid_affine,
    swoop_series,
    to_bytes,
)
from qcnode.imaging.volume import Volume, volume_from_instances, volume_from_nifti


def rng(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def small(plane: Plane = Plane.AXIAL, slices: int = 12, rows: int = 20, columns: int = 16) -> Volume:
    """A volume of random voxels, oblique, on a small grid of that plane."""
    return Volume(np.rint(rng().uniform(0, 900, (slices, rows, columns))).astype(np.float32), _affine(plane))


def _affine(plane: Plane) -> np.ndarray:
    turn = np.eye(4)
    c, s = np.cos(0.1), np.sin(0.1)
    turn[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    turn[:3, 3] = (3.0, -7.0, 11.0)
    return turn @ grid_affine(plane)


def swoop(volume: Volume) -> list[bytes]:
    return [to_bytes(swoop_series(volume, patient_id="SECRET", generator=rng()))]


def classic(volume: Volume) -> list[Dataset]:
    return classic_series(volume, patient_id="SECRET", generator=rng())


def encoded(series: list[Dataset]) -> list[bytes]:
    return [to_bytes(ds) for ds in series]


def assert_same(one: Volume, other: Volume) -> None:
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-4)


@pytest.mark.parametrize("plane", Plane)
def test_a_volume_survives_the_way_through_dicom(plane: Plane) -> None:
    volume = small(plane)
    for instances in (swoop(volume), encoded(classic(volume))):
        back = volume_from_instances(instances)
        assert_same(back, volume)
        assert back.plane is plane
        assert back.spacing_mm == pytest.approx((5.0, 1.6, 1.6), abs=1e-4)


@pytest.mark.parametrize("plane", Plane)
@pytest.mark.parametrize("backwards", [False, True])
def test_each_slice_knows_its_instance_or_frame(plane: Plane, backwards: bool) -> None:
    wanted = small(plane)
    if backwards:
        affine = wanted.affine.copy()
        affine[:3, 3] += affine[:3, 0] * (len(wanted.array) - 1)
        affine[:3, 0] *= -1
        wanted = Volume(np.ascontiguousarray(wanted.array[::-1]), affine)
    instances = classic(wanted)
    volume = volume_from_instances(encoded(instances[3:] + instances[:3]))
    by_uid = {ds.SOPInstanceUID: np.sort(ds.pixel_array, axis=None) for ds in instances}
    assert all(source.frame is None for source in volume.sources)
    for pixels, source in zip(volume.array, volume.sources, strict=True):
        assert np.array_equal(np.sort(pixels, axis=None), by_uid[source.sop_instance_uid])
    enhanced = swoop_series(wanted, patient_id="SECRET", generator=rng())
    volume = volume_from_instances([to_bytes(enhanced)])
    assert {source.sop_instance_uid for source in volume.sources} == {str(enhanced.SOPInstanceUID)}
    for pixels, source in zip(volume.array, volume.sources, strict=True):
        assert source.frame is not None
        assert np.array_equal(np.sort(pixels, axis=None), np.sort(enhanced.pixel_array[source.frame - 1], axis=None))


def test_slices_are_counted_from_an_end_of_the_patient() -> None:
    turned = np.diag([-1.0, 1, 1, 1])
    named = {
        (plane, sign): Volume(small(plane).array, small(plane).affine @ sign_of).counted_from
        for plane in Plane
        for sign, sign_of in ((1, np.eye(4)), (-1, turned))
    }
    assert {named[Plane.AXIAL, sign] for sign in (1, -1)} == {"the feet", "the head"}
    assert named[Plane.AXIAL, 1] == "the feet"
    assert {named[Plane.CORONAL, sign] for sign in (1, -1)} == {"the back", "the front"}
    assert {named[Plane.SAGITTAL, sign] for sign in (1, -1)} == {"the left", "the right"}


def test_order_changes_nothing() -> None:
    instances = encoded(classic(small(Plane.CORONAL)))
    expected = volume_from_instances(instances)
    for seed in range(5):
        shuffled = [instances[i] for i in rng(seed).permutation(len(instances))]
        assert_same(volume_from_instances(shuffled), expected)


def test_a_duplicate_changes_nothing() -> None:
    series = classic(small(Plane.SAGITTAL))
    expected = volume_from_instances(encoded(series))
    again = deepcopy(series[4])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = "2.25.4"  # the same picture under another name
    assert_same(volume_from_instances(encoded([*series, series[7], again])), expected)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_compression_changes_nothing(syntax: str) -> None:
    series = classic(small(slices=5, rows=64, columns=48))
    expected = volume_from_instances(encoded(series))
    for ds in series:
        ds.compress(syntax, generate_instance_uid=False)
    assert_same(volume_from_instances(encoded(series)), expected)


def test_rescale_slope_is_applied_slice_by_slice() -> None:
    volume = small()
    series = classic(volume)
    for i, ds in enumerate(series):
        ds.RescaleSlope, ds.RescaleIntercept = str(1 + 0.5 * i), "-3"
    array = volume_from_instances(encoded(series)).array
    slopes = 1 + 0.5 * np.arange(len(series))
    np.testing.assert_allclose(array, volume.array * slopes[:, None, None] - 3, rtol=1e-6)


def test_rescale_slope_of_the_shared_groups_is_applied() -> None:
    volume = small()
    ds = swoop_series(volume, patient_id="P", generator=rng())
    ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleSlope = "2.5"
    np.testing.assert_allclose(volume_from_instances([to_bytes(ds)]).array, volume.array * 2.5)


def test_a_swoops_top_level_geometry_is_not_trusted_first() -> None:
    volume = small()
    ds = swoop_series(volume, patient_id="P", generator=rng())
    ds.PixelSpacing, ds.ImagePositionPatient = ["9", "9"], ["0", "0", "0"]
    ds.ImageOrientationPatient = ["0", "1", "0", "0", "0", "1"]
    assert_same(volume_from_instances([to_bytes(ds)]), volume)


def sentence(series: list[Dataset], kind: type[PermanentError] = NotAssessable) -> str:
    with pytest.raises(kind) as caught:
        volume_from_instances(encoded(series))
    message = str(caught.value)
    assert message.endswith(".")
    assert "SECRET" not in message
    assert "SYNTHETIC" not in message
    return message


def axial(slices: int = 36) -> list[Dataset]:
    return classic(Volume(small().array[:1].repeat(slices, 0), np.diag([1.0, 1, 1, 1])[:, [2, 1, 0, 3]] * [5, 1, 1, 1]))


def test_a_missing_slice_is_named() -> None:
    series = axial()
    del series[16]
    assert sentence(series) == "Slice 17 of 36 is missing (between 75.0 mm and 85.0 mm); send the series again."
    del series[2], series[20:22]
    assert (
        sentence(series) == "Slice 3 of 36 is missing (between 5.0 mm and 15.0 mm), and 3 more; send the series again."
    )


def test_neighbouring_missing_slices_are_named() -> None:
    series = axial()
    del series[10:12]
    assert sentence(series).startswith("Slices 11 to 12 of 36 are missing (between 45.0 mm and 60.0 mm)")


def test_uneven_slices_are_named() -> None:
    series = axial()
    x, y, z = series[35].ImagePositionPatient
    series[35].ImagePositionPatient = [x, y, z + 2]
    assert sentence(series).startswith("The slices are unevenly spaced: 7.0 mm between slices 35 and 36, 5.0 mm")


def test_damaged_pixels_are_named_by_their_slice() -> None:
    series = classic(small())
    series[3].PixelData = series[3].PixelData[:100]
    assert "slice 4 of 12" in sentence(series)
    cut = swoop(small())[0][:-3000]  # four frames and a bit of 640 bytes each
    with pytest.raises(NotAssessable, match=r"slice \d+ of 12 .* is cut short"):
        volume_from_instances([cut])


def test_a_leaning_stack_is_named() -> None:
    series = axial()
    for i, ds in enumerate(series):
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y + i, z]
    assert "leans by 11.3°" in sentence(series)


def test_a_slice_beside_the_stack_is_named() -> None:
    series = axial()
    x, y, z = series[9].ImagePositionPatient
    series[9].ImagePositionPatient = [x + 8, y, z]
    assert sentence(series).startswith("Slice 10 of 36 lies 8.0 mm beside the others")


def test_two_pictures_of_one_slice_are_named() -> None:
    series = classic(small())
    other = deepcopy(series[5])
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "2.25.5"
    other.PixelData = series[6].PixelData
    assert sentence([*series, other]).startswith("Slice 6 of 12 is there 2 times with different pictures")


def test_several_volumes_are_excluded() -> None:
    first, second = classic(small()), classic_series(small(), patient_id="P", generator=rng(9))
    for ds, other in zip(second, reversed(first), strict=True):
        ds.PixelData = other.PixelData
    assert "2 volumes" in sentence([*first, *second], Excluded)


def test_a_localizer_is_excluded() -> None:
    series = classic(small(Plane.AXIAL)) + classic(small(Plane.CORONAL)) + classic(small(Plane.SAGITTAL))
    assert "3 directions" in sentence(series, Excluded)


def test_what_is_no_grey_mr_stack_is_excluded() -> None:
    for keyword, value, says in (
        ("Modality", "CT", "CT, not MR"),
        ("Modality", "SECRET 1", "another modality"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "mosaic"),
        ("SamplesPerPixel", 3, "colour"),
        ("PhotometricInterpretation", "PALETTE COLOR", "colour"),
        ("PhotometricInterpretation", "MONOCHROME1", "exchanged"),
    ):
        series = classic(small())
        setattr(series[0], keyword, value)
        assert says in sentence(series, Excluded)


def test_a_slice_without_a_place_is_not_assessable() -> None:
    series = classic(small())
    del series[2].ImagePositionPatient
    assert "does not say where" in sentence(series)
    series = classic(small())
    series[2].ImageOrientationPatient = ["1", "0", "0", "1", "0", "0"]
    assert "orientation" in sentence(series)
    assert "3 slices" in sentence(classic(small(slices=3)))
    with pytest.raises(NotAssessable, match="no instances"):
        volume_from_instances([])


def test_damaged_runs_become_a_sentence() -> None:
    series = classic(small(slices=5, rows=64, columns=48))
    for ds in series:
        ds.compress(RLELossless, generate_instance_uid=False)
    good = to_bytes(series[2])
    at = good.index(series[2].PixelData[20:40])
    rejected = 0
    for seed in range(40):
        data = bytearray(good)
        for place in rng(seed).integers(at, len(data) - 8, 6):
            data[place] = rng(seed).integers(256)
        try:
            volume_from_instances([bytes(data) if ds is series[2] else to_bytes(ds) for ds in series])
        except NotAssessable as error:
            rejected += "slice 3 of 5" in str(error)
    assert rejected


SWOOP = swoop(small(slices=4))[0]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cut=st.integers(0, len(SWOOP)),
    changes=st.lists(st.tuples(st.integers(132, len(SWOOP) - 1), st.integers(0, 255)), max_size=6),
    truncate=st.booleans(),
)
def test_damaged_bytes_give_a_volume_or_a_sentence(cut: int, changes: list[tuple[int, int]], truncate: bool) -> None:
    data = bytearray(SWOOP)
    for place, value in changes:
        data[place] = value
    try:
        volume = volume_from_instances([bytes(data[:cut] if truncate else data)])
    except PermanentError:
        return
    assert volume.array.ndim == 3


# --- NIfTI ---


def save(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (1.5, 1.5, 1.5)) -> Path:
    nibabel.Nifti1Image(array, np.diag([*spacing, 1.0])).to_filename(path)
    return path


@pytest.mark.parametrize(("axis", "plane"), [(0, Plane.SAGITTAL), (1, Plane.CORONAL), (2, Plane.AXIAL)])
def test_nifti_slices_lie_along_the_largest_spacing(tmp_path: Path, axis: int, plane: Plane) -> None:
    spacing = [1.5, 1.5, 1.5]
    spacing[axis] = 5.0
    array = rng().normal(size=(6, 7, 8)).astype(np.float32)
    volume = volume_from_nifti(save(tmp_path / "a.nii.gz", array, (spacing[0], spacing[1], spacing[2])))
    assert volume.plane is plane
    assert volume.array.shape[0] == array.shape[axis]
    index = np.array([1, 2, 3])
    at = np.linalg.inv(np.diag([*spacing, 1.0])) @ volume.affine @ [*index, 1]
    assert volume.array[tuple(index)] == array[tuple(np.rint(at[:3]).astype(int))]


def test_isotropic_nifti_is_cut_along_its_last_axis(tmp_path: Path) -> None:
    assert volume_from_nifti(save(tmp_path / "a.nii", np.ones((4, 5, 6, 1), np.int16))).array.shape == (6, 5, 4)


def test_what_is_no_volume_in_nifti_is_named(tmp_path: Path) -> None:
    with pytest.raises(Excluded, match="3 volumes"):
        volume_from_nifti(save(tmp_path / "t.nii", np.ones((4, 5, 6, 3), np.int16)))
    with pytest.raises(NotAssessable, match="no volume"):
        volume_from_nifti(save(tmp_path / "s.nii", np.ones((4, 5), np.int16)))
    (tmp_path / "x.nii").write_bytes(b"no image")
    for name in ("x.nii", "absent.nii"):
        with pytest.raises(NotAssessable, match="cannot be read"):
            volume_from_nifti(tmp_path / name)


# --- real data ---


def real_series(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Each folder's DICOM files by their series."""
    series: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            if file.seek(128) and file.read(4) == b"DICM":
                uid = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"]).get(
                    "SeriesInstanceUID"
                )
                series[path.parent, str(uid)].append(path)
    for (parent, _), paths in series.items():
        yield str(parent.relative_to(folder)), paths


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_every_real_file_gives_a_volume_or_a_sentence(real_data: Path) -> None:
    outcomes: Counter[str] = Counter()
    for name, paths in real_series(real_data / "dicom"):
        for group in (paths, *([p] for p in paths[:12] if len(paths) > 1)):
            try:
                outcome = "Volume"
                volume = volume_from_instances([p.read_bytes() for p in group])
                assert np.isfinite(volume.array).all()
            except PermanentError as error:
                outcome = f"{type(error).__name__}: {error}"
            outcomes[outcome.split(":")[0]] += 1
            print(f"{name[-45:]:45} {len(group):4}  {outcome}")
    print(dict(outcomes))
    assert outcomes["Volume"] >= 14
    assert outcomes["Excluded"] >= 30
    assert outcomes["NotAssessable"] >= 50


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(
    ("folder", "says"),
    [
        ("gantrytilting", "gantry tilt"),
        ("notavolume", "4 pictures of 1 place"),
        ("slicecount", "2 slices"),
        ("sliceincrement", "unevenly|missing"),
        ("sliceorientation", "directions"),
    ],
)
def test_real_faulty_stacks_are_named_were_they_mr(real_data: Path, folder: str, says: str) -> None:
    for name, paths in real_series(real_data / "dicom" / "dicom2nifti_tests" / "failing" / folder):
        series = [dcmread(path) for path in paths]
        for ds in series:
            ds.Modality = "MR"
        with pytest.raises(PermanentError, match=says):
            volume_from_instances(encoded(series))
        assert name


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_real_volumes_agree_with_dcm2niix(real_data: Path, tmp_path: Path) -> None:
    """Every MR volume that both convert: shape, affine and voxels, in one orientation."""
    program = shutil.which("dcm2niix")
    if program is None:
        pytest.skip("dcm2niix is not installed")
    compared = []
    for name, paths in real_series(real_data / "dicom"):
        try:
            ours = volume_from_instances([p.read_bytes() for p in paths])
        except PermanentError:
            continue
        source, target = tmp_path / name / "source", tmp_path / name / "target"
        source.mkdir(parents=True)
        target.mkdir()
        for number, path in enumerate(paths):
            shutil.copy(path, source / f"{number:04}.dcm")
        subprocess.run([program, "-z", "n", "-b", "n", "-o", target, source], check=False, capture_output=True)
        theirs = [nibabel.load(path) for path in target.glob("*.nii")]
        if not theirs:
            print("not converted by dcm2niix:", name)
            continue
        assert len(theirs) == 1, name
        ornt = io_orientation(ours.affine)
        array = apply_orientation(ours.array, ornt)
        affine = ours.affine @ inv_ornt_aff(ornt, ours.array.shape)
        other = nibabel.as_closest_canonical(theirs[0])
        assert array.shape == other.shape, name
        np.testing.assert_allclose(affine, other.affine, atol=1e-2, err_msg=name)
        np.testing.assert_allclose(array, other.get_fdata(), rtol=1e-5, err_msg=name)
        compared.append(name)
    print(f"{len(compared)} volumes agree with dcm2niix:", *compared, sep="\n  ")
    assert len(compared) >= 13
