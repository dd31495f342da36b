"""The model card says what its manifest and the test scans say, and is known for whose it is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from chance_weights import write_chance_weights

from qcnode.artifacts import Artifact
from qcnode.ensemble.weights import Extents, Manifest, read_manifest, shipped_folder
from train.card import is_generated, model_card
from train.export import add_figures, with_extents, write_card
from train.studies.report import Graded, figures, macro_f1s

TRUTH = np.array([0, 0, 1, 1, 2, 2, 0, 0])
CALLED = np.array([0, 0, 1, 0, 2, 2, 0, 1])
GROUPS = [("plane: axial", "subject: newborn")] * 6 + [("plane: sagittal",)] * 2
EXTENTS: Extents = ((30, 36), (114, 134), (115, 124))
GRADED = Graded([f"LISA_{n // 2:04d}" for n in range(8)], TRUTH, np.eye(3)[CALLED])
FOUND = dict.fromkeys(Artifact, GRADED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_chance_weights(tmp_path / "run", tmp_path / "weights")


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    found = with_extents(read_manifest(folder), EXTENTS, folder)
    return add_figures(found, dict.fromkeys(Artifact, figures(GRADED)), folder)


def test_a_card_says_what_was_trained_measured_and_not_tested(manifest: Manifest) -> None:
    card = model_card(manifest, FOUND, GROUPS, extents=EXTENTS, forests=macro_f1s(FOUND))
    lines = [re.sub(" +", " ", line) for line in card.splitlines()]
    assert f"# Model card: {manifest.id}" in lines
    assert "grade Noise, Zipper, Positioning, Banding, Motion, Contrast and Distortion\n" in card
    assert "2026-01-01 by `python -m train export`." in lines
    assert "- **Labels**: 0, 1 and 2 as `none` defines them." in lines
    assert "- **Preprocessing**: `grid-1`, 40 × 144 × 144 (slices, rows, columns)." in lines
    assert "usually 36 × 134 × 124, and in all but 1 % of them at least 30 × 114 × 115." in card
    assert "| Motion | compact-resnet | 2 | – | – | 000000000000 |" in lines  # chance trained on nothing
    assert "(4, with 8 scans)" in card
    assert any(line.startswith("| subject: newborn | 6 (3) | 0.82 (") for line in lines)
    assert "| Zipper | 3, 1, 0 | 1, 1, 0 | 0, 0, 2 |" in lines
    assert "| Noise | 1.00 | 0.00, 0.00, 0.00 | 1.00, 1.00, 1.00 |" in lines
    assert "## Not tested" in lines
    assert not any(line != line.rstrip() for line in card.splitlines())


def test_what_is_not_known_is_left_out(manifest: Manifest) -> None:
    card = model_card(manifest, FOUND, GROUPS)
    assert "Extents" not in card
    assert "forest of metrics (95 %)" not in card
    assert "\n\n\n" not in card


def test_a_card_is_written_anew_unless_a_person_wrote_or_changed_it(
    manifest: Manifest, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "MODEL_CARD.md"
    card = model_card(manifest, FOUND, GROUPS, extents=EXTENTS)
    assert is_generated(card)
    write_card(card, folder)
    other = model_card(manifest, FOUND, GROUPS)
    write_card(other, folder)
    assert path.read_text() == other
    assert not caplog.text
    shipped = (shipped_folder() / "MODEL_CARD.md").read_text()
    for hand_written in ("# Our weights\n", "", other.replace("Not tested", "Tested later"), shipped):
        path.write_text(hand_written)
        write_card(card, folder)
        assert path.read_text() == hand_written
    assert caplog.text.count("was written or changed by a person") == 4
    assert read_manifest(folder) == manifest
