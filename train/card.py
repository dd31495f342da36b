"""The model card of an exported weights folder: what its members learned from and how good they are, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

from qcnode.artifacts import Artifact
from qcnode.ensemble.weights import Extents, Manifest, Measured
from train.studies.report import Graded, by_group, confusion_table, group_table, markdown, table

MODEL_CARD = "MODEL_CARD.md"


def model_card(
    manifest: Manifest,
    found: Mapping[Artifact, Graded],
    groups: Sequence[Sequence[str]],
    *,
    extents: Extents | None = None,
    forests: Mapping[Artifact, Measured] | None = None,
) -> str:
    """The card of weights whose manifest has its figures; its first line is how `is_generated` knows it.

    found: what the members said of the test scans, each of which is in its `groups`. extents: of the training scans,
    as the manifest's. forests: the macro F1 of those of image-quality metrics on the same scans.
    """
    each = {entry.artifact: entry.figures for entry in manifest.members if entry.figures}
    one = next(iter(each.values()))
    *first, last = each
    body = f"""# Model card: {manifest.id}

Seven networks that grade {", ".join(first)} and {last}
in low-field brain MRI as 0 none, 1 moderate, 2 severe. Not a medical device: a person decides. Exported on
{manifest.created:%Y-%m-%d} by `python -m train export`.

## Training

- **Labels**: 0, 1 and 2 as `{manifest.severity_definition}` defines them.
- **Contrasts**: {", ".join(sorted(manifest.contrasts))}.
- **Preprocessing**: `{manifest.preprocessing}`, {_sizes(manifest.members[0].input_size)} (slices, rows, columns).
{_extents(extents)}
{_training(manifest)}

Training scans are all that a member saw, copies and renders among them. Its whole configuration is in `manifest.json`.

## Measured

On the run's test subjects ({one.subjects}, with {one.scans} scans), by whom it chose neither weights nor epochs nor
calibration; these files, one scan at a time in float32, as the node grades. Intervals are 95 %, from a bootstrap of
subjects.

{table(each, forests)}

*Macro F1* is the mean over the three severities; *always the commonest* is what naming the commonest severity every
time would score, *forest of metrics* what random forests of image-quality metrics score, without a network; the *mean
of 15* is of LISA 2025's figures; *severe found* is the share of severe scans that are called severe.

{group_table(by_group(found, groups))}

A dash: a severity has no scan in the group. One subject alone has no interval.

{confusion_table(found)}

## Calibration

Fitted on the validation subjects: softmax(logits / temperature + bias). A severity is named by its probability times
its emphasis. How far confidence is from truth on the test subjects is the calibration error above.

{_calibration(manifest)}

## Not tested

Nothing but the above was measured; whoever uses these weights should write here what else their patients bring (other
scanners and field strengths, contrasts, ages, diseases, implants, several artifacts at once), and what came of it.
"""
    return f"{_mark(body)}\n{body}"


def is_generated(card: str) -> bool:
    """Whether `model_card` made it, and nobody has changed it since."""
    first, _, body = card.partition("\n")
    return first == _mark(body)


def _mark(body: str) -> str:
    digest = sha256(body.encode()).hexdigest()[:16]
    return f"<!-- Made by python -m train export ({digest}), which leaves a card alone that somebody has changed. -->"


def _sizes(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))


def _extents(extents: Extents | None) -> str:
    if extents is None:
        return ""
    fewest, usual = zip(*extents, strict=True)
    said = f"usually {_sizes(usual)}, and in all but 1 % of them at least {_sizes(fewest)}"
    return f"- **Extents of the training scans**, each axis by itself: {said}.\n"


def _training(manifest: Manifest) -> str:
    rows = [["artifact", "encoder", "width", "training scans", "chosen epoch", "commit"]]
    for entry in manifest.members:
        known = [str(entry.training.get(key, "–")) for key in ("training_scans", "best_epoch")]
        rows.append([entry.artifact, entry.encoder, str(entry.width), *known, entry.commit[:12]])
    return markdown(rows)


def _calibration(manifest: Manifest) -> str:
    rows = [["artifact", "temperature", "bias (none, moderate, severe)", "emphasis (the same)"]]
    for entry in manifest.members:
        bias, emphasis = (", ".join(f"{n:.2f}" for n in each) for each in (entry.bias, entry.emphasis))
        rows.append([entry.artifact, f"{entry.temperature:.2f}", bias, emphasis])
    return markdown(rows)
