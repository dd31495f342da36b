"""A member that is trained for seconds grades people it never saw better than the commonest severity does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.imaging.preprocess import network_input
from train.config import FitConfig
from train.dataset import Inputs, Scan, inputs, subject_name
from train.metrics import macro_f1, majority
from train.run import fit_run
from train.simulation.acquire import Simulated, apply
from train.simulation.brains import Source, anatomy
from train.simulation.contrasts import head
from train.simulation.draws import draw
from train.simulation.scans import clean_scan
from train.simulation.severity import OutOfContract
from train.split import TEST, TRAIN, VALIDATION
from train.studies import folds

PARTS = {TRAIN: 8, VALIDATION: 2, TEST: 4}  # people in each


@pytest.fixture(scope="module")
def people() -> Inputs:
    """A scan in each plane of synthetic heads, with every severity of Noise, as `simulate` draws, renders and measures.

    Heads are drawn on a grid of 4 mm, which takes a tenth of the time.
    """
    torch.set_num_threads(1)
    scans, images = [], []
    with pytest.MonkeyPatch.context() as patch:
        for module in ("qcnode.imaging.anatomy", "train.simulation.brains"):
            patch.setattr(f"{module}.GRID_MM", 4.0)
        for patient in range(9001, 9001 + sum(PARTS.values())):  # nobody whom another test draws on a fine grid
            generator = np.random.default_rng(patient)
            for turn, plane in enumerate(Plane):
                simulated = _simulated(patient, plane, Severity((patient + turn) % 3), generator)
                name, labels = subject_name(patient), tuple(int(simulated.labels[artifact]) for artifact in Artifact)
                scans.append(Scan(Path(f"{name}_LF_{plane.suffix}.nii.gz"), name, plane, labels))
                images.append(network_input(simulated.volume).astype(np.float16))
    return inputs(scans, images)


def _simulated(patient: int, plane: Plane, noise: Severity, generator: np.random.Generator) -> Simulated:
    its = anatomy(Source(patient, f"phantom-{patient}", None, "phantom", "T2w"))
    levels = dict.fromkeys(Artifact, Severity.NONE) | {Artifact.NOISE: noise}
    for _ in range(60):
        scan = clean_scan(head(its, "T2w", float(generator.uniform(115, 180)), generator), plane, generator)
        try:
            return apply(scan, draw(generator, levels))
        except OutOfContract:
            continue
    raise AssertionError(f"{patient} is never drawn")


def test_a_member_trained_for_seconds_beats_the_majority_on_people_it_never_saw(people: Inputs, tmp_path: Path) -> None:
    parts = [part for part, count in PARTS.items() for _ in range(count)]
    part_of = dict(zip(sorted({scan.subject for scan in people.scans}), parts, strict=True))
    config = FitConfig(width=4, epochs=4, epoch_steps=12, blocks=1, learning_rate=0.005, bf16=False)
    fit_run(config, [Artifact.NOISE], people, part_of, tmp_path)
    assert json.loads((tmp_path / "Noise.json").read_text())["training"]["training_scans"] == 3 * PARTS[TRAIN]

    found = folds.tested(config, Artifact.NOISE, people, part_of, tmp_path)
    assert {part_of[subject] for subject in found.subjects} == {TEST}
    assert np.bincount(found.truth).tolist() == [PARTS[TEST]] * 3
    assert macro_f1(found.truth, majority(found.truth)) == pytest.approx(1 / 6)
    assert macro_f1(found.truth, found.named) > 0.5
