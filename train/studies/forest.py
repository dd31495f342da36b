"""The baseline of FetMRQC (doi:10.1016/j.media.2024.103282): image-quality metrics and a random forest, no network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from qcnode.artifacts import Artifact, Severity
from qcnode.imaging.preprocess import PREPROCESSING
from train.dataset import Inputs, cached
from train.given import inputs_of, read_split, test_inputs
from train.progress import progress
from train.split import TRAIN, VALIDATION
from train.studies import quality_metrics
from train.studies.report import Graded

TREES = 300
METRICS = 26  # of a scan
# Where metrics are kept: of this code, so that none is taken for what other code would measure.
_FOLDER = f"metrics-{sha256(inspect.getsource(quality_metrics).encode()).hexdigest()[:8]}"


def measured(data: Inputs, cache: Path | None = None) -> dict[str, NDArray[np.float64]]:
    """Each scan's metrics and its plane, by the name of its file.

    cache: the folder of network inputs, beside which metrics are kept; only for inputs that `PREPROCESSING` makes.
    """
    rows = {}
    for scan, image, plane in zip(data.scans, progress(data.images, "metrics"), data.planes, strict=True):
        made = partial(_metrics, image)
        metrics = cached(scan.path, cache, _FOLDER, made, (METRICS,)) if cache else made()
        rows[scan.path.name] = np.array([*metrics, plane])
    return rows


def _metrics(image: NDArray[np.float16]) -> NDArray[np.float64]:
    return np.array([*quality_metrics.quality_metrics(np.asarray(image, np.float32)).values()])


def forests_of_run(data: Path, cache: Path | None, runs: Path) -> dict[Artifact, Graded]:
    """What forests of the run's training and validation subjects say of its test subjects, metrics being kept.

    Nothing where the folder has no scan of the former; ConfigError where it has none of the latter.
    """
    test = test_inputs(data, cache, runs, PREPROCESSING)
    training = inputs_of(data, cache, read_split(runs), [TRAIN, VALIDATION])
    if not training.scans:
        return {}
    folder = cache or data / ".inputs"
    rows = measured(training, folder) | measured(test, folder)
    return forest_graded(rows, list(Artifact), training, test, seed=1)


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
