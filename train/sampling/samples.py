"""One scan of a batch: which it is, what is drawn anew on it, how it is varied, and what is known of it then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcnode.artifacts import Artifact, Severity
from qcnode.ensemble.tissue import APART, PLACE, every_third
from train.config import FitConfig
from train.dataset import Inputs
from train.sampling.fading import Tissues, drawn_anew
from train.sampling.fields import Fields
from train.sampling.looks import Varied, varied_look
from train.sampling.redraw import REDRAWN, can_be_redrawn, is_bare, is_redrawn, redraw, redrawable
from train.sampling.truth import Maps, brain_of_regions, contrast_maps, of_anew, widened
from train.sampling.variation import Half, Image, drawn
from train.simulation.severity import OutOfContract

_QUIETEST_OF = 3  # scans, where Contrast is drawn severely


class Sample(NamedTuple):
    """One scan of a batch beside its image.

    measured: what is known of an artifact that was drawn anew, in place of what was measured on that scan; else None.
    """

    labels: NDArray[np.int64]
    plane: int
    mask: Image | None = None
    fields: Fields | None = None
    truth: Maps | None = None
    measured: Mapping[str, float] | None = None


class Sources(NamedTuple):
    """What samples are made from. bases: the scans on which a member's artifact is drawn.

    with_truth: for a member that learns what a scan was made with at every place (train/sampling/truth.py): it is given
    every third slice of a scan, and its artifact is drawn at every severity.
    """

    data: Inputs
    artifacts: Set[Artifact]
    config: FitConfig
    bases: NDArray[np.int64]
    with_truth: bool

    def shape(self, index: int) -> tuple[int, ...]:
        """Of what an encoder is given of a scan while it trains."""
        shape = self.data.images[index].shape
        return (-(-shape[0] // APART), *shape[1:]) if self.with_truth else shape


def sources_of(data: Inputs, artifacts: Set[Artifact], config: FitConfig) -> Sources:
    """What samples are made from for a member of one artifact, or for an encoder that several share."""
    bases: Sequence[int] | NDArray[np.int64] = []
    with_truth = len(artifacts) == 1 and bool(config.truth_weight)
    if len(artifacts) == 1 and config.redraw and artifacts <= set(REDRAWN):
        (artifact,) = artifacts
        if with_truth and artifact is Artifact.CONTRAST:
            known = zip(data.truths, data.measured, strict=True) if data.truths and data.measured else ()
            bases = [index for index, (its, measured) in enumerate(known) if its and its.plain and measured]
        elif not with_truth:
            bases = redrawable(data.labels, artifact, data.measured)
    return Sources(data, artifacts, config, np.array(bases, np.int64), with_truth)


def sample_into(sources: Sources, into: Image, index: int, seed: int) -> Sample:
    """Write one scan into its place in a batch, drawn by its own seed, whichever thread comes first."""
    try:
        return _drawn_into(sources, into, index, np.random.default_rng(seed))
    except OutOfContract:  # an artifact that the other scan cannot have: this one as it is
        as_it_is = sources.config.model_copy(update={"redraw": 0.0, "shared_redraw": 0.0})
        return _drawn_into(sources._replace(config=as_it_is), into, index, np.random.default_rng(seed))


def _drawn_into(sources: Sources, into: Image, index: int, generator: np.random.Generator) -> Sample:
    data, artifacts, config = sources.data, sources.artifacts, sources.config
    labels, plane = data.labels[index], int(data.planes[index])
    if into.ndim == 1:
        into[:], across = _look(data, index, config, generator)
        fields = data.fields[index] if data.fields and config.field_weight else None
        fields = fields if fields is None or across is None else fields.mirrored(across)
        return Sample(labels, plane, fields=fields)
    image: Image | Half
    mask = None
    if len(artifacts) == 1:
        (artifact,) = artifacts
        index, fresh = _of_severity(sources, index, artifact, generator)
        tissues = data.truths[index] if data.truths and sources.with_truth else None
        if tissues:
            return _with_truth(sources, into, index, labels, tissues, fresh.get(artifact), generator)
        image, plane = data.images[index], int(data.planes[index])
        if data.masks and config.mask_weight and not (fresh and artifact is Artifact.DISTORTION):
            mask = data.masks[index]  # of a scan whose voxels are moved here it would no longer be true
    else:
        image = data.images[index]
        its = data.measured[index] if data.measured else {}
        fresh = _fresh_artifacts(labels, its, artifacts, config, generator)
        labels = labels.copy()
        for artifact, severity in fresh.items():
            labels[list(Artifact).index(artifact)] = severity
    if sources.with_truth:
        image = every_third(image, int(generator.integers(APART)))
    variation = drawn(artifacts, config, generator)
    variation.into(into, image)
    for artifact, severity in fresh.items():
        redraw(into, artifact, severity, generator)
    moved = None if mask is None else variation.of_mask(np.asarray(mask, np.float32) / np.float32(255))
    return Sample(labels, plane, moved, measured={} if fresh and len(artifacts) == 1 else None)


def _with_truth(
    sources: Sources,
    into: Image,
    index: int,
    labels: NDArray[np.int64],
    tissues: Tissues,
    severity: Severity | None,
    generator: np.random.Generator,
) -> Sample:
    """As `_drawn_into`, of a scan with a truth, for a member that learns it.

    severity: at which Contrast is drawn anew; None: it stays.
    """
    data, config = sources.data, sources.config
    its: Mapping[str, float] = data.measured[index] if data.measured else {}
    first = int(generator.integers(APART))
    image: Image | Half = every_third(data.images[index], first)
    places, measured = every_third(widened(tissues.maps), first), None
    if severity is not None and tissues.plain:
        brain = brain_of_regions(tissues.maps)
        anew = drawn_anew(tissues.plain, brain, its, severity, generator, first)
        image, places, measured = anew.image, of_anew(places, anew), anew.measured
    variation = drawn(sources.artifacts, config, generator)
    variation.into(into, image)
    for other in _others(config, generator) if measured else ():
        with suppress(OutOfContract):  # a scan that cannot have it
            redraw(into, other, _graded(generator), generator, apart=APART, lies_askew=False)
    maps = contrast_maps(variation.of_places(places, PLACE), (measured or its).get("contrast_seen"))
    return Sample(labels, int(data.planes[index]), truth=maps, measured=measured)


def _others(config: FitConfig, generator: np.random.Generator) -> list[Artifact]:
    """Which of the others a scan whose Contrast was drawn anew is given as well, in their order."""
    return [other for other in (Artifact.MOTION, Artifact.BANDING) if generator.random() < config.redraw_others]


def _graded(generator: np.random.Generator) -> Severity:
    return Severity.SEVERE if generator.random() < 0.5 else Severity.MODERATE


def _look(data: Inputs, index: int, config: FitConfig, generator: np.random.Generator) -> Varied:
    look = np.asarray(data.images[index], np.float32)
    if config.variation == "none":
        return Varied(look)
    return varied_look(config.encoder, look, data.scans[index].plane, generator)


def _of_severity(
    sources: Sources, index: int, artifact: Artifact, generator: np.random.Generator
) -> tuple[int, dict[Artifact, Severity]]:
    """The scan, or another without the artifact, and the severity at which it is to be drawn on that."""
    severity = Severity(int(sources.data.labels[index, list(Artifact).index(artifact)]))
    drawable = len(sources.bases) if sources.with_truth else is_redrawn(artifact, severity)
    if not drawable or generator.random() >= sources.config.redraw:
        return index, {}
    base = int(generator.choice(sources.bases))
    if sources.with_truth and (artifact, severity) == (Artifact.CONTRAST, Severity.SEVERE):
        # Where shading makes bright it makes noise loud.
        several = [base, *generator.choice(sources.bases, _QUIETEST_OF - 1).tolist()]
        base = min(several, key=lambda index: sources.data.measured[index]["noise_sigma"])
    return base, {artifact: severity}


def _fresh_artifacts(
    labels: NDArray[np.int64],
    measured: Mapping[str, float],
    artifacts: Set[Artifact],
    config: FitConfig,
    generator: np.random.Generator,
) -> dict[Artifact, Severity]:
    """Artifacts that a scan of these labels did not have and that are drawn onto it here and there, in their order."""
    severities = {artifact: Severity(int(label)) for artifact, label in zip(Artifact, labels, strict=True)}
    fresh: dict[Artifact, Severity] = {}
    for artifact in REDRAWN:
        if artifact not in artifacts or not can_be_redrawn(artifact, severities | fresh):
            continue
        if not is_bare(artifact, measured):
            continue
        if generator.random() < config.shared_redraw:
            severity = Severity(int(generator.integers(len(Severity))))
            if is_redrawn(artifact, severity):
                fresh[artifact] = severity
    return fresh
