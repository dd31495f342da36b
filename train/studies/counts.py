"""How many scans of each severity there are, shown before training; a severity without one is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.errors import ConfigError
from train.dataset import Scan
from train.split import SHARES, TRAIN


def counts_table(scans: Sequence[Scan], part_of: Mapping[str, str]) -> str:
    """Scans of severity 0 / 1 / 2 by artifact: in each plane, and in each part of the split that has subjects."""
    groups = {plane.value: [scan for scan in scans if scan.plane is plane] for plane in Plane}
    for part in SHARES:
        if part in part_of.values():
            groups[part] = [s for s in scans if part_of[s.subject] == part and (part == TRAIN or not s.is_copy)]
    rows = [f"| scans 0 / 1 / 2 | {' | '.join(groups)} |", "|---" * (len(groups) + 1) + "|"]
    for artifact in Artifact:
        cells = [" / ".join(map(str, counts_by_severity(group, artifact))) for group in groups.values()]
        rows.append(f"| {artifact} | {' | '.join(cells)} |")
    return "\n".join(rows)


def refuse_absent(scans: Sequence[Scan], part_of: Mapping[str, str], artifacts: Sequence[Artifact]) -> None:
    """Raise ConfigError where no training scan has one of the artifact's severities: it could not be learned."""
    training = [scan for scan in scans if part_of[scan.subject] == TRAIN]
    for artifact in artifacts:
        for severity, count in zip(Severity, counts_by_severity(training, artifact), strict=True):
            if count == 0:
                raise ConfigError(
                    f"No training scan has {artifact} of severity {severity:d}; add some, from another patient than "
                    f"those for validation and test, or name the other artifacts with --artifact."
                )


def counts_by_severity(scans: Sequence[Scan], artifact: Artifact) -> list[int]:
    """How many scans have the artifact at severity 0, 1, 2."""
    labels = [scan.labels[list(Artifact).index(artifact)] for scan in scans]
    return [int(n) for n in np.bincount(np.array(labels, np.int64), minlength=len(Severity))]
