"""A training run → a weights folder: its members, their calibration, their figures, their model card."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save

from qcnode.artifacts import Artifact
from qcnode.ensemble.runtime import Ensemble
from qcnode.ensemble.stacks import can_be_laid, there
from qcnode.ensemble.weights import MANIFEST, Extents, Figures, Manifest, MemberEntry
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import INPUT_SHAPES, PREPROCESSING
from train.calibrate import fitted_calibration
from train.card import MODEL_CARD, is_generated
from train.checkpoint import halved
from train.dataset import Inputs
from train.progress import progress
from train.sampling.variation import seen_as

log = logging.getLogger(__name__)
_FEWEST = 1  # percentile: a few cut scans are not what a member knows
# Of the fewest slices: a little below, a stack that is laid hides more of a movement than the padding beside it does.
_STILL_KNOWN = {Artifact.MOTION: 0.87}


def write_weights(
    runs: Path, out: Path, *, name: str, severity_definition: str, contrasts: Sequence[str], created: datetime
) -> Manifest:
    """The run's seven members in half precision, and a manifest that knows neither calibration nor figures yet."""
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    for artifact in Artifact:
        try:
            record = json.loads((runs / f"{artifact}.json").read_text())
            tensors = load_file(runs / f"{artifact}.safetensors")
        except OSError as error:
            raise ConfigError(f"{runs} has no member for {artifact}; run `fit --artifact {artifact}` first.") from error
        data = save(halved(tensors))  # a run of an older version kept more
        file = f"{artifact.lower()}.safetensors"
        preprocessing = record["training"].get("preprocessing", PREPROCESSING)  # older runs had no choice
        (out / file).write_bytes(data)
        entries.append(
            MemberEntry(
                file=file,
                sha256=hashlib.sha256(data).hexdigest(),
                input_size=INPUT_SHAPES[preprocessing],
                preprocessing=preprocessing,
                **record,
            )
        )
    digest = hashlib.sha256("".join(entry.sha256 for entry in entries).encode()).hexdigest()
    manifest = Manifest(
        id=f"{name}-{digest[:8]}",
        created=created,
        severity_definition=severity_definition,
        contrasts=frozenset(contrasts),
        members=tuple(entries),
    )
    _save(manifest, out)
    return manifest


def extents_of(training: Inputs) -> Extents:
    """How large the training scans are: the fewest, but for one percent, and the usual slices, rows and columns."""
    found = []
    for image in progress(training.images, "extents"):
        scan = torch.from_numpy(np.array(image))
        found.append([last - first for first, last in (there(scan, axis) for axis in range(3))])
    slices, rows, columns = np.percentile(found, (_FEWEST, 50), axis=0, method="lower").astype(int).T.tolist()
    return tuple(slices), tuple(rows), tuple(columns)


def with_extents(manifest: Manifest, extents: Extents, out: Path) -> Manifest:
    """The manifest with how large the training scans are, for members that smaller ones are laid out for; in place."""
    (fewest, usual), *others = extents
    members = []
    for entry in manifest.members:
        if can_be_laid(entry.artifact, entry.encoder, entry.preprocessing):
            known = round(fewest * _STILL_KNOWN.get(entry.artifact, 1))
            entry = entry.model_copy(update={"extents": ((known, usual), *others)})
        members.append(entry)
    complete = manifest.model_copy(update={"members": tuple(members)})
    _save(complete, out)
    return complete


def calibrated(manifest: Manifest, ensemble: Ensemble, validation: Inputs, out: Path) -> Manifest:
    """The manifest with the calibration that suits these files on the validation subjects, written in place.

    A member that was trained on scans without their background, or sharper ones, is calibrated on such, too.
    """
    ways = {
        entry.artifact: seen_as(
            entry.artifact, *(cast(float, entry.training.get(key, 0.0)) for key in ("emptied", "sharpness_jitter"))
        )
        for entry in manifest.members
    }
    said: dict[Artifact, list[NDArray[np.float32]]] = {artifact: [] for artifact in ways}
    # A way for several members at once, which share the cores.
    for number, way in enumerate(dict.fromkeys(chain.from_iterable(ways.values())), start=1):
        asked = [artifact for artifact, its in ways.items() if way in its]
        for image in progress(validation.images, f"calibrate {number}"):
            for artifact, logits in ensemble.logits(way.of(image), asked).items():
                said[artifact].append(logits)
    members = []
    for entry in manifest.members:
        severities = validation.labels[:, list(Artifact).index(entry.artifact)]
        target = np.tile(severities, len(ways[entry.artifact]))
        fitted = fitted_calibration(np.array(said[entry.artifact]), target)
        members.append(entry.model_copy(update=fitted._asdict()))
    complete = manifest.model_copy(update={"members": tuple(members)})
    _save(complete, out)
    return complete


def add_figures(manifest: Manifest, figures: dict[Artifact, Figures], out: Path) -> Manifest:
    """The manifest with each member's figures, written in place of the one without."""
    members = tuple(entry.model_copy(update={"figures": figures[entry.artifact]}) for entry in manifest.members)
    complete = manifest.model_copy(update={"members": members})
    _save(complete, out)
    return complete


def write_card(card: str, out: Path) -> None:
    """Write the model card; one that a person wrote, or changed, is left as it is, which is said."""
    path = out / MODEL_CARD
    if path.is_file() and not is_generated(path.read_text(errors="replace")):
        log.warning("%s was written or changed by a person, and stays; see that it is true of these weights.", path)
    else:
        path.write_text(card)


def _save(manifest: Manifest, out: Path) -> None:
    (out / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
