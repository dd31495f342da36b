"""A training run → a weights folder, and what is in it measured on subjects that the run never saw."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save

from qcnode.artifacts import Artifact
from qcnode.ensemble.runtime import Ensemble
from qcnode.ensemble.weights import MANIFEST, Figures, Manifest, Measured, MemberEntry
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import INPUT_SHAPE, PREPROCESSING
from train import metrics
from train.calibrate import fitted_calibration
from train.dataset import Inputs
from train.progress import progress


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
        data = save({key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()})
        file = f"{artifact.lower()}.safetensors"
        (out / file).write_bytes(data)
        entries.append(
            MemberEntry(
                file=file,
                sha256=hashlib.sha256(data).hexdigest(),
                input_size=INPUT_SHAPE,
                preprocessing=PREPROCESSING,
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


def calibrated(manifest: Manifest, ensemble: Ensemble, validation: Inputs, out: Path) -> Manifest:
    """The manifest with the calibration that suits these files on the validation subjects, written in place."""
    said = [ensemble.logits(np.asarray(image, np.float32)) for image in progress(validation.images, "calibrate")]
    members = []
    for entry in manifest.members:
        truth = validation.labels[:, list(Artifact).index(entry.artifact)]
        fitted = fitted_calibration(np.array([logits[entry.artifact] for logits in said]), truth)
        members.append(entry.model_copy(update=fitted._asdict()))
    complete = manifest.model_copy(update={"members": tuple(members)})
    _save(complete, out)
    return complete


def evaluated(ensemble: Ensemble, data: Inputs) -> dict[Artifact, Figures]:
    """Each member's figures on these scans, graded one by one as the node does it."""
    graded = [ensemble.grade(np.asarray(image, np.float32)) for image in progress(data.images, "evaluate")]
    subjects = [scan.subject for scan in data.scans]
    figures = {}
    for index, artifact in enumerate(Artifact):
        truth = data.labels[:, index]
        probabilities = np.array([grades[artifact].probabilities for grades in graded])
        named = np.array([int(grades[artifact].severity) for grades in graded])
        none, moderate, severe = (int(n) for n in np.bincount(truth, minlength=3))
        figures[artifact] = Figures(
            subjects=len(set(subjects)),
            scans=len(truth),
            scans_by_severity=(none, moderate, severe),
            macro_f1=_rounded(metrics.measured(metrics.macro_f1, truth, named, subjects)),
            majority_macro_f1=round(metrics.majority_macro_f1(truth), 3),
            balanced_accuracy=_rounded(metrics.measured(metrics.balanced_accuracy, truth, named, subjects)),
            severe_recall=_rounded(metrics.measured(metrics.severe_recall, truth, named, subjects)),
            quadratic_kappa=_rounded(metrics.measured(metrics.quadratic_kappa, truth, named, subjects)),
            challenge_mean=round(float(np.mean(list(metrics.challenge_figures(truth, named).values()))), 3),
            calibration_error=round(metrics.calibration_error(probabilities, truth), 3),
        )
    return figures


def add_figures(manifest: Manifest, figures: dict[Artifact, Figures], out: Path) -> Manifest:
    """The manifest with each member's figures, written in place of the one without."""
    members = tuple(entry.model_copy(update={"figures": figures[entry.artifact]}) for entry in manifest.members)
    complete = manifest.model_copy(update={"members": members})
    _save(complete, out)
    return complete


def figures_table(figures: dict[Artifact, Figures]) -> str:
    """The figures as a Markdown table, for the terminal and the model card."""
    rows = [
        "| artifact | macro F1 (95 %) | always the commonest | severe found (95 %) | kappa | calibration error |",
        "|---|---|---|---|---|---|",
    ]
    for artifact, its in figures.items():
        f1, severe, kappa = its.macro_f1, its.severe_recall, its.quadratic_kappa.value
        rows.append(
            f"| {artifact} | **{f1.value:.2f}** ({f1.low:.2f} – {f1.high:.2f}) | {its.majority_macro_f1:.2f} "
            f"| {severe.value:.2f} ({severe.low:.2f} – {severe.high:.2f}) | {kappa:.2f} | {its.calibration_error:.2f} |"
        )
    mean = np.mean([its.macro_f1.value for its in figures.values()])
    majority = np.mean([its.majority_macro_f1 for its in figures.values()])
    rows.append(f"| mean | **{mean:.2f}** | {majority:.2f} | | | |")
    return "\n".join(rows)


def _rounded(measured: Measured) -> Measured:
    return Measured(**{key: round(value, 3) for key, value in measured.model_dump().items()})


def _save(manifest: Manifest, out: Path) -> None:
    (out / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
