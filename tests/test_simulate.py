"""The severity contract, held by measurement on finished scans of a synthetic head; draws replay; corpora continue."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_brains import write_brains

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.errors import ConfigError
from qcnode.imaging.volume import volume_from_nifti
from train.__main__ import main
from train.dataset import subject_name
from train.simulate import simulate_corpus, simulate_scan
from train.simulation import physics
from train.simulation.acquire import Simulated, apply, cut_share, pose_of_line
from train.simulation.brains import phantoms, sources
from train.simulation.contrasts import Head
from train.simulation.draws import (
    DISTORTION_SHARES,
    MOTION_ORDER_SHARES,
    SHADING_SHARES,
    Draw,
    Levels,
    draw,
    draw_levels,
)
from train.simulation.scans import SLICES, CleanScan, Grid, Pose, clean_scan, render
from train.simulation.severity import OutOfContract, is_forbidden, severity_of

STRENGTH = {  # the measured value that grows with severity; positioning and contrast have two ways each
    Artifact.NOISE: "noise_sigma",
    Artifact.BANDING: "band_depth",
    Artifact.MOTION: "motion_nrms",
    Artifact.DISTORTION: "displacement_mm",
}
AFFECTED = [(artifact, severity) for artifact in Artifact for severity in (Severity.MODERATE, Severity.SEVERE)]


def _levels(artifact: Artifact | None = None, severity: Severity = Severity.NONE) -> dict[Artifact, Severity]:
    return {a: severity if a == artifact else Severity.NONE for a in Artifact}


@pytest.fixture(scope="module")
def scan() -> CleanScan:
    """A brain of nested, folded ellipsoids under a scalp, on a coarse grid that is quick to render."""
    torch.set_num_threads(1)
    shape, spacing_mm = (64, 76, 64), 2.5
    x, y, z = (np.arange(n) - (n - 1) / 2 for n in shape)
    x, y, z = np.meshgrid(x, y, z, indexing="ij")
    radius = np.sqrt((x / 20) ** 2 + (y / 25) ** 2 + (z / 19) ** 2)
    fold = 0.07 * np.sin(x * 0.9) * np.sin(y * 0.8) * np.sin(z * 0.9)
    brain = radius < 1
    white = radius + fold < 0.72
    inner = radius < 0.25
    signal = np.select([inner, white, brain, radius < 1.15, radius < 1.3], [1.0, 0.42, 0.66, 0.1, 0.6], 0.0)
    grey = brain & ~white & ~inner
    channels = np.stack([signal, brain, grey, white & ~inner]).astype(np.float32)
    where = np.argwhere(brain)
    centre = (where.min(axis=0) + where.max(axis=0)) / 2
    points = ((where[::29] - centre) * spacing_mm).astype(np.float32)
    head = Head(torch.from_numpy(channels), np.full(3, spacing_mm), centre, points)
    grid = Grid(Plane.AXIAL, (30, 60, 56), (5.0, 3.0, 3.0))
    return CleanScan(head, grid, Pose((1.0, -2.0, 0.5), (1.0, 2.0, -1.0)), 0.4, 0.27)


def _simulated(scan: CleanScan, levels: Levels, seed: int) -> tuple[Simulated, Draw]:
    generator = np.random.default_rng(seed)
    for _ in range(60):
        drawn = draw(generator, levels)
        try:
            return apply(scan, drawn), drawn
        except OutOfContract:
            continue
    raise AssertionError(f"{levels} is never reached")


@pytest.mark.parametrize("plane", Plane)
def test_a_stack_has_as_few_and_as_many_slices_as_the_definition_allows(scan: CleanScan, plane: Plane) -> None:
    generator = np.random.default_rng(0)
    counts = {clean_scan(scan.head, plane, generator).grid.shape[0] for _ in range(400)}
    assert (min(counts), max(counts)) == SLICES == (28, 44)


@pytest.mark.parametrize("plane", Plane)
def test_a_large_brain_is_given_slices_enough(scan: CleanScan, plane: Plane) -> None:
    large = replace(scan.head, brain_points_mm=scan.head.brain_points_mm * np.float32(1.4))
    generator = np.random.default_rng(0)
    scans = [clean_scan(large, plane, generator) for _ in range(100)]
    extents = [np.ptp(each.head.brain_points_mm @ each.pose.rotation.T, axis=0).max() for each in scans]
    assert min(extents) > 150  # mm: more than 28 slices hold
    assert all(cut_share(each, each.pose) == 0 for each in scans)


def test_zero_strength_is_the_identity(scan: CleanScan) -> None:
    nothing = draw(np.random.default_rng(0), _levels(), slight=False)
    clean = render(scan, scan.pose)
    signal = clean.signal / clean.signal[clean.brain > 0.5].mean()
    native = physics.contrast(signal, clean.grey, clean.white)
    signal = np.maximum(physics.faded(signal, clean.grey, clean.white, scan.contrast / native), 0)
    np.testing.assert_allclose(apply(scan, nothing).volume.array, signal, atol=1e-5)


@pytest.mark.parametrize(("artifact", "severity"), AFFECTED)
def test_a_label_is_what_was_measured(scan: CleanScan, artifact: Artifact, severity: Severity) -> None:
    simulated, _ = _simulated(scan, _levels(artifact, severity), seed=int(severity))
    assert simulated.labels == _levels(artifact, severity)
    assert simulated.labels == {a: severity_of(a, simulated.measured) for a in Artifact}
    assert np.isfinite(simulated.volume.array).all()
    assert simulated.volume.array.min() >= 0


@pytest.mark.parametrize("artifact", list(STRENGTH))
def test_severe_measures_more_than_moderate_and_moderate_more_than_none(scan: CleanScan, artifact: Artifact) -> None:
    none, moderate, severe = (
        _simulated(scan, _levels(artifact, severity), seed=5)[0].measured[STRENGTH[artifact]] for severity in Severity
    )
    assert none < 0.6 * moderate
    assert moderate < 0.8 * severe


@pytest.mark.parametrize("artifact", list(Artifact))
def test_a_recorded_draw_replays_to_the_same_bytes(scan: CleanScan, artifact: Artifact) -> None:
    simulated, drawn = _simulated(scan, _levels(artifact, Severity.MODERATE), seed=7)
    replayed = apply(scan, Draw.from_json(json.loads(json.dumps(drawn.to_json()))))
    assert replayed.volume.array.tobytes() == simulated.volume.array.tobytes()
    assert replayed.measured == simulated.measured


KINDS = [
    *(("shading_kind", Artifact.CONTRAST, kind) for kind in SHADING_SHARES),
    *(("distortion_kind", Artifact.DISTORTION, kind) for kind in DISTORTION_SHARES),
    *(("motion_order", Artifact.MOTION, kind) for kind in MOTION_ORDER_SHARES),
]


@pytest.mark.parametrize("severity", [Severity.MODERATE, Severity.SEVERE])
@pytest.mark.parametrize(("field", "artifact", "kind"), KINDS)
def test_each_kind_is_as_severe_as_its_label_says_and_replays(
    scan: CleanScan, field: str, artifact: Artifact, kind: str, severity: Severity
) -> None:
    generator = np.random.default_rng(21)
    for _ in range(40):
        drawn = replace(draw(generator, _levels(artifact, severity), slight=False), **{field: kind})
        if artifact is Artifact.CONTRAST and drawn.shading_ratio == 1:
            continue  # its contrast is faded instead
        try:
            simulated = apply(scan, drawn)
            break
        except OutOfContract:
            continue
    assert {a: severity_of(a, simulated.measured) for a in Artifact} == _levels(artifact, severity)
    replayed = apply(scan, Draw.from_json(json.loads(json.dumps(drawn.to_json()))))
    assert replayed.volume.array.tobytes() == simulated.volume.array.tobytes()


def test_every_kind_is_drawn_as_often_as_it_should() -> None:
    generator = np.random.default_rng(22)
    drawn = [draw(generator, _levels()) for _ in range(1500)]
    for field, shares in (
        ("shading_kind", SHADING_SHARES),
        ("distortion_kind", DISTORTION_SHARES),
        ("motion_order", MOTION_ORDER_SHARES),
    ):
        counted = Counter(getattr(one, field) for one in drawn)
        assert {kind: counted[kind] / len(drawn) for kind in shares} == pytest.approx(shares, abs=0.05)


def test_centre_out_reads_the_lowest_frequencies_first() -> None:
    drawn = replace(draw(np.random.default_rng(23), _levels()), motion_order="centre-out")
    for lines in (33, 34):
        poses = pose_of_line(drawn, lines)
        outwards = poses[np.abs(np.arange(lines) - lines // 2 + 0.25).argsort()]
        assert (np.diff(outwards) >= 0).all()
        assert poses[lines // 2] == 0


def test_a_record_from_before_the_kinds_replays_as_it_was_made() -> None:
    drawn = draw(np.random.default_rng(24), _levels(Artifact.CONTRAST, Severity.MODERATE))
    record = {key: value for key, value in drawn.to_json().items() if not key.endswith("_kind")}
    assert Draw.from_json(record) == replace(drawn, shading_kind="smooth", distortion_kind="waves")


def test_no_draw_holds_a_pair_that_hides_itself() -> None:
    generator = np.random.default_rng(8)
    drawn = [draw_levels(generator) for _ in range(3000)]
    assert not any(is_forbidden(levels) for levels in drawn)
    assert any(levels[Artifact.NOISE] == levels[Artifact.ZIPPER] == Severity.SEVERE for levels in drawn)
    hidden = _levels(Artifact.NOISE, Severity.SEVERE) | {Artifact.MOTION: Severity.MODERATE}
    with pytest.raises(OutOfContract, match="hide"):
        draw(generator, hidden)


def test_drawn_severities_are_balanced() -> None:
    generator = np.random.default_rng(9)
    drawn = [draw_levels(generator) for _ in range(4000)]
    for artifact in Artifact:
        share = np.bincount([levels[artifact] for levels in drawn], minlength=3) / len(drawn)
        assert 0.6 < share[0] < 0.8
        assert abs(share[1] - share[2]) < 0.05


def test_the_background_is_rician_noise_of_the_measured_strength(scan: CleanScan) -> None:
    drawn = draw(np.random.default_rng(10), _levels(Artifact.NOISE, Severity.SEVERE), slight=False)
    simulated = apply(scan, drawn)
    air = simulated.volume.array[:2, :6, :6]
    assert (simulated.volume.array > 0).all()
    # Rayleigh: the mean square is twice the variance of one part
    assert np.sqrt(np.mean(air**2) / 2) == pytest.approx(simulated.measured["noise_sigma"], rel=0.15)


@pytest.mark.parametrize("phase", ["jumps", "drifts"])
@pytest.mark.parametrize("axis", [1, 2])
def test_zipper_lines_are_where_they_were_drawn_in_the_finished_image(scan: CleanScan, axis: int, phase: str) -> None:
    positions = (0.21, 0.77)
    drawn = replace(
        draw(np.random.default_rng(11), _levels(Artifact.ZIPPER, Severity.SEVERE), slight=False),
        phase_axis=axis,
        zipper_positions=positions,
        zipper_amplitude=0.8,
        zipper_phase=phase,
    )
    without = replace(drawn, zipper_amplitude=0.0, levels=drawn.levels | {"Zipper": 0})
    residual = apply(scan, drawn).volume.array - apply(scan, without).volume.array
    across = np.sqrt(np.mean(residual**2, axis=(0, axis)))
    found = sorted(int(i) for i in np.argsort(across)[-2:])
    readout = scan.grid.shape[3 - axis] - 1
    np.testing.assert_allclose(found, [p * readout for p in positions], atol=0.51)
    # measured on the image: in air the whole amplitude is seen, in the brain its in-phase part
    affected = slice(round(drawn.zipper_slices[0] * 30), round(drawn.zipper_slices[1] * 30))
    line = np.take(residual[affected], found[0], axis=3 - axis)
    assert 0.8 / np.sqrt(2) * 0.85 < np.sqrt(np.mean(line**2)) < 0.8 * 1.1


@pytest.mark.parametrize(
    ("artifact", "measured"),
    [
        (Artifact.NOISE, {"noise_sigma": 0.07}),
        (Artifact.ZIPPER, {"zipper_amplitude": 0.45, "zipper_lines": 2.0}),
        (Artifact.ZIPPER, {"zipper_amplitude": 0.20, "zipper_lines": 4.0}),
        (Artifact.POSITIONING, {"tilt_degrees": 7.0, "offset_mm": 0.0, "cut_share": 0.0}),
        (Artifact.POSITIONING, {"tilt_degrees": 12.0, "offset_mm": 0.0, "cut_share": 0.05}),
        (Artifact.POSITIONING, {"tilt_degrees": 2.0, "offset_mm": 9.0, "cut_share": 0.0}),
        (Artifact.BANDING, {"band_depth": 0.25}),
        (Artifact.MOTION, {"motion_nrms": 0.2}),
        (Artifact.CONTRAST, {"contrast_left": 0.75, "shading_ratio": 1.2}),
        (Artifact.CONTRAST, {"contrast_left": 0.55, "shading_ratio": 3.0}),
        (Artifact.DISTORTION, {"displacement_mm": 6.0, "strain": 0.05}),
        (Artifact.DISTORTION, {"displacement_mm": 9.0, "strain": 0.3}),
    ],
)
def test_between_two_intervals_there_is_no_severity(artifact: Artifact, measured: dict[str, float]) -> None:
    with pytest.raises(OutOfContract):
        severity_of(artifact, measured)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_corpus_has_true_rows_and_can_be_grown(tmp_path: Path) -> None:
    brains, out = write_brains(tmp_path / "brains"), tmp_path / "corpus"
    simulate_corpus(brains, out, count=2, seed=3, workers=1)
    before = (out / "labels.csv").read_text()
    simulate_corpus(brains, out, count=3, seed=3, workers=1)
    assert (out / "labels.csv").read_text().startswith(before)
    rows = _rows(out / "labels.csv")
    assert len(rows) == 3
    subjects = {row["subject"] for row in _rows(out / "subjects.csv")}
    for row in rows:
        name = row["filename"]
        record = json.loads((out / name.replace(".nii.gz", ".json")).read_text())
        assert {a.value: int(row[a]) for a in Artifact} == record["draw"]["levels"]
        assert name.rsplit("_run-")[0] in subjects
        volume = volume_from_nifti(out / name)
        assert volume.plane == record["plane"]
        assert volume.spacing_mm[0] == pytest.approx(5.0)
        mask = volume_from_nifti(out / name.replace(".nii.gz", "_mask.nii.gz"))
        assert mask.affine == pytest.approx(volume.affine)
        assert 300 < mask.array.sum() * np.prod(mask.spacing_mm) / 1000 < 2000, "millilitres of brain"
        assert np.median(volume.array[mask.array > 0]) > 3 * np.median(volume.array[mask.array == 0])
    again, record = simulate_scan(sources(brains) + phantoms(24), 3, 2)
    name = next(row["filename"] for row in rows if "run-00002" in row["filename"])
    written = volume_from_nifti(out / name).array
    expected = np.rint(again.volume.array * record["gain"])
    assert np.sort(written.ravel()) == pytest.approx(np.sort(expected.ravel()))


def test_a_varied_scan_is_of_another_scanner_and_its_labels_are_as_true(tmp_path: Path) -> None:
    found = sources(write_brains(tmp_path / "brains")) + phantoms(24)
    usual, varied = ([simulate_scan(found, 4, run, varied=kind) for run in range(2)] for kind in (False, True))
    for (one, record), (other, its) in zip(usual, varied, strict=True):
        assert record["fluid"] == 1.0 != its["fluid"]
        assert 0.15 <= record["blur_voxels"] <= 0.9
        assert 0.1 <= its["blur_voxels"] <= 0.7
        assert one.labels == other.labels, "the severities are drawn first"
        for simulated in (one, other):
            assert {a: severity_of(a, simulated.measured) for a in Artifact} == simulated.labels


def test_a_corpus_may_be_of_one_weighting_and_of_one_part_s_subjects(tmp_path: Path) -> None:
    brains, out, run = write_brains(tmp_path / "brains"), tmp_path / "corpus", tmp_path / "run"
    everybody = {subject_name(its.patient) for its in sources(brains)}
    chosen, *others = sorted(everybody)
    run.mkdir()
    (run / "split.json").write_text(json.dumps(dict.fromkeys(others, "train") | {chosen: "test"}))
    options = ["--count", "2", "--weighting", "FLAIR", "--runs", str(run), "--part", "test", "--workers", "1"]
    assert main(["simulate", str(brains), str(out), *options]) == 0
    records = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    assert [record["weighting"] for record in records] == ["FLAIR", "FLAIR"]
    assert {row["filename"].rsplit("_run-")[0] for row in _rows(out / "labels.csv")} == {chosen}
    assert [row["subject"] for row in _rows(out / "subjects.csv")] == [chosen]
    simulate_corpus(brains, out, count=3, seed=3, subjects=others)
    assert len(_rows(out / "labels.csv")) == 3
    assert {row["subject"] for row in _rows(out / "subjects.csv")} == everybody, "those of the earlier scans stay"


def test_subjects_that_no_brain_is_of_are_refused(tmp_path: Path) -> None:
    brains = write_brains(tmp_path / "brains")
    with pytest.raises(ConfigError, match="None of the run's subjects is in"):
        simulate_corpus(brains, tmp_path / "out", 1, 1, subjects=["LISA_9999"])
    assert main(["simulate", str(brains), str(tmp_path / "out"), "--part", "test"]) == 2
    assert not (tmp_path / "out").exists()
