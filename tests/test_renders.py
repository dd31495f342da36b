"""A scan rendered onto blocks is what the finer scan becomes when its voxels are averaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.blocks import blocks_of
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import network_input
from train.sampling.measures import MEASURES
from train.simulation import renders
from train.simulation.acquire import apply
from train.simulation.brains import anatomy, phantoms
from train.simulation.contrasts import head
from train.simulation.draws import Draw, draw
from train.simulation.renders import read_renders, render_corpus, rendered
from train.simulation.scans import CleanScan, clean_scan
from train.simulation.severity import severity_of

NONE = dict.fromkeys(Artifact, Severity.NONE)


@pytest.fixture(scope="module")
def scan() -> CleanScan:
    torch.set_num_threads(1)
    generator = np.random.default_rng(11)
    return clean_scan(head(anatomy(phantoms(3)[1]), "T2w", 165.0, generator), Plane.AXIAL, generator)


def drawn(seed: int, **levels: Severity) -> Draw:
    chosen = NONE | {Artifact(name): severity for name, severity in levels.items()}
    return draw(np.random.default_rng(seed), chosen, slight=False)


@pytest.mark.parametrize(
    "levels",
    [
        {},
        {"Banding": Severity.SEVERE},
        {"Positioning": Severity.MODERATE},
        {"Noise": Severity.SEVERE},
        {"Motion": Severity.SEVERE},
        {"Zipper": Severity.SEVERE},
    ],
)
def test_blocks_are_the_means_of_the_finer_scans_voxels(scan: CleanScan, levels: dict[str, Severity]) -> None:
    its = drawn(5, **levels)
    fine = network_input(apply(scan, its).volume)
    seen = blocks_of(torch.from_numpy(fine)[None, None])[0].numpy()
    made = rendered(scan, its, np.random.default_rng(1)).blocks.astype(np.float32)
    assert made.shape == seen.shape
    assert np.corrcoef(made.ravel(), seen.ravel())[0, 1] > 0.97
    assert made[seen > 0.35].mean() == pytest.approx(
        seen[seen > 0.35].mean(), rel=0.12
    )  # the foreground of fewer samples
    air = (seen > 0) & (seen < 0.2)
    assert made[air].mean() == pytest.approx(seen[air].mean(), abs=0.03)


@pytest.mark.parametrize("plane", Plane)
def test_a_render_lies_as_the_network_input_of_its_plane(scan: CleanScan, plane: Plane) -> None:
    its = clean_scan(scan.head, plane, np.random.default_rng(2))
    fine = network_input(apply(its, drawn(5)).volume)
    seen = blocks_of(torch.from_numpy(fine)[None, None])[0].numpy()
    made = rendered(its, drawn(5), np.random.default_rng(1)).blocks.astype(np.float32)
    assert np.corrcoef(made.ravel(), seen.ravel())[0, 1] > 0.97


def test_the_labels_are_those_that_were_drawn_and_true_as_measured(scan: CleanScan) -> None:
    its = drawn(8, Positioning=Severity.SEVERE, Distortion=Severity.MODERATE)
    made = rendered(scan, its, np.random.default_rng(1))
    assert made.labels == [its.levels[artifact] for artifact in Artifact]
    for artifact in (Artifact.POSITIONING, Artifact.DISTORTION):
        assert severity_of(artifact, made.measured) == its.levels[artifact]
    assert made.measured.keys() == {key for keys in MEASURES.values() for key in keys}


def test_a_corpus_of_renders_is_read_as_it_was_written_and_goes_on(tmp_path: Path) -> None:
    renders._write_part(phantoms(2), None, tmp_path, 3, 0, 9, False)
    before = (tmp_path / "renders-3-0000.npz").stat()
    renders._write_part(phantoms(2), None, tmp_path, 3, 0, 9, False)
    assert (tmp_path / "renders-3-0000.npz").stat().st_mtime_ns == before.st_mtime_ns
    data = read_renders(tmp_path)
    assert len(data.scans) == len(data.images) == len(data.measured) == 9
    assert {scan.subject for scan in data.scans} <= {"LISA_1001", "LISA_1002"}
    assert all(scan.is_copy for scan in data.scans)  # trained on, and never measured on
    assert [scan.labels for scan in data.scans] == [tuple(row) for row in data.labels.tolist()]
    only = data.of({"LISA_1001"})
    assert 0 < len(only.scans) == len(only.measured) <= 9
    assert data.of({"LISA_1001", "LISA_1002"}, copies=False).scans == []
    again = tmp_path / "again"
    again.mkdir()
    renders._write_part(phantoms(2), None, again, 3, 0, 9, False)
    assert np.array_equal(read_renders(again).images[4], data.images[4])


def test_renders_move_where_it_is_asked_for(tmp_path: Path) -> None:
    columns = [list(Artifact).index(artifact) for artifact in (Artifact.MOTION, Artifact.ZIPPER)]
    for moving in (False, True):
        folder = tmp_path / str(moving)
        folder.mkdir()
        renders._write_part(phantoms(2), None, folder, 3, 0, 16, moving)
        data = read_renders(folder)
        assert data.labels[:, columns].any(axis=0).tolist() == [moving, moving]
        assert all((its["motion_nrms"] > 0) <= moving for its in data.measured)
        assert all(
            its["tilt_degrees"] == max(its[f"{way}_degrees"] for way in ("nod", "lean", "turn"))
            for its in data.measured
        )


def test_a_folder_without_renders_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="python -m train render"):
        read_renders(tmp_path)


def test_the_command_writes_parts_until_the_count_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Here:
        """A pool of this very process, in which the parts' size is patched."""

        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> Here:
            return self

        def __exit__(self, *_: object) -> None: ...
        def submit(self, function: object, *arguments: object) -> Here:
            function(*arguments)  # type: ignore[operator]
            return self

        def result(self) -> None: ...

    monkeypatch.setattr(renders, "_PARTS_SCANS", 3)
    monkeypatch.setattr(renders, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(renders, "sources", lambda folder: [])
    out = tmp_path / "out"

    def parts() -> list[np.ndarray]:
        found = []
        for path in sorted(out.iterdir()):
            with np.load(path) as part:
                assert len(json.loads(str(part["record"]))["labels"]) == len(part["blocks"])
                found.append(part["blocks"])
        return found

    render_corpus(tmp_path, out, 5, 1)
    assert sorted(path.name for path in out.iterdir()) == ["renders-1-0000.npz", "renders-1-0001.npz"]
    first, second = parts()
    assert (len(first), len(second)) == (3, 2)
    render_corpus(tmp_path, out, 6, 1)  # more of the same: what is full stays, what was short is filled up
    filled, more = parts()
    np.testing.assert_array_equal(filled, first)
    np.testing.assert_array_equal(more[:2], second)
    assert len(more) == 3
