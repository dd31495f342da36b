"""The baseline of FetMRQC (doi:10.1016/j.media.2024.103282): image-quality metrics and a random forest, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from qcnode.artifacts import Artifact, Severity
from train.dataset import Inputs
from train.progress import progress
from train.studies.quality_metrics import quality_metrics
from train.studies.report import Graded

TREES = 300


def measured(data: Inputs) -> dict[str, NDArray[np.float64]]:
    """Each scan's metrics and its plane, by the name of its file."""
    rows = {}
    for scan, image, plane in zip(data.scans, progress(data.images, "metrics"), data.planes, strict=True):
        metrics = quality_metrics(np.asarray(image, np.float32))
        rows[scan.path.name] = np.array([*metrics.values(), plane])
    return rows


def forest_graded(
    rows: Mapping[str, NDArray[np.float64]], artifacts: Sequence[Artifact], training: Inputs, test: Inputs, seed: int
) -> dict[Artifact, Graded]:
    """What forests of the training scans say of the test scans; each artifact has one, its severities weigh alike.

    rows: what is `measured` of both.
    """
    seen, unseen = (np.stack([rows[scan.path.name] for scan in data.scans]) for data in (training, test))
    subjects = [scan.subject for scan in test.scans]
    found = {}
    for artifact in artifacts:
        index = list(Artifact).index(artifact)
        forest = RandomForestClassifier(TREES, class_weight="balanced_subsample", random_state=seed)
        forest.fit(seen, training.labels[:, index])
        probabilities = np.zeros((len(subjects), len(Severity)))
        probabilities[:, forest.classes_] = forest.predict_proba(unseen)
        found[artifact] = Graded(subjects, test.labels[:, index], probabilities)
    return found
