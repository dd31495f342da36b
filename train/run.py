"""One run: the members of one split of the subjects, from a common start."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from qcnode.artifacts import Artifact
from qcnode.errors import ConfigError
from train import ranks
from train.config import OF_TRUTHS, FitConfig
from train.dataset import Inputs
from train.loop import fit_member, fit_shared
from train.pretrain import PRETRAINED, start_from_pretrained
from train.sampling.looks import looked_at, looks
from train.shared import SHARED, Shared, is_shipped, new_member, shipped_member
from train.split import TRAIN, VALIDATION, subjects_of

log = logging.getLogger(__name__)


def fit_run(
    config: FitConfig,
    artifacts: Sequence[Artifact],
    scans: Inputs,
    part_of: Mapping[str, str],
    out: Path,
    *,
    earlier: Path | None = None,
    init: Path | None = None,
    renders: Inputs | None = None,
    board: Path | None = None,
) -> None:
    """Train these artifacts' members into `out`; what an interrupted run with the same arguments finished is kept.

    scans: of the training and validation subjects at least. earlier: a run whose shared or pre-trained encoder to go on
    from. init: a weights folder whose members to go on from. No shared encoder is trained then, nor where no member
    starts from it. renders: more scans of subjects, for members whose encoder looks at blocks.
    board: the folder of TensorBoard's logs, where they are wanted.
    """
    training = scans.of(subjects_of(part_of, TRAIN))
    validation = scans.of(subjects_of(part_of, VALIDATION), copies=False)
    if not training.scans or not validation.scans:
        raise ConfigError("There are too few patients to validate on; five are the least.")
    if any(config.of(artifact).mask_weight for artifact in artifacts) and not any(
        m is not None for m in training.masks
    ):
        raise ConfigError(
            "mask_weight is set and no training scan has a mask; lay NAME_mask.nii.gz beside it, or set it to 0."
        )
    if any(config.of(artifact).truth_weight for artifact in artifacts) and not any(
        t is not None for t in training.truths
    ):
        raise ConfigError(
            "truth_weight is set and no training scan has a truth; simulate writes NAME_truth.nii.gz, or set it to 0."
        )
    if not init and any(config.of(artifact).start_share for artifact in artifacts):
        raise ConfigError("start_share is of the weights that --init names; give it a weights folder, or set it to 0.")
    if not (init or earlier) and any(config.of(artifact).frozen for artifact in artifacts):
        raise ConfigError(
            "frozen leaves an encoder as it begins; name --start or --init to begin with, or set it to false."
        )
    for artifact in artifacts:
        its = config.of(artifact)
        if not can_draw(its) and not (init and is_shipped(its, artifact, init)):
            raise ConfigError(
                f"{its.encoder} learns to draw from the truth alone; set truth_weight above 0, or give --init a folder"
                f" whose {artifact} is alike."
            )
    out.mkdir(parents=True, exist_ok=True)
    log.info("fit_started training_scans=%d validation_scans=%d", len(training.scans), len(validation.scans))
    sharing = {artifact for artifact in artifacts if _of_shared_kind(config.of(artifact), config)}
    shared = None
    if sharing and not init:
        seen = _seen(config, training, validation, renders, part_of, out)
        shared = _shared(config, artifacts, *seen, out, earlier, board)
    for artifact in artifacts:
        its = config.of(artifact)
        member = shipped_member(its, artifact, init) if init else new_member(its)
        if shared and artifact in sharing:
            member = shared.member(artifact, member)
        elif not init and earlier and (earlier / PRETRAINED).is_file():
            start_from_pretrained(member.encoder, its, earlier, str(artifact))
        fit_member(its, artifact, member, *_seen(its, training, validation, renders, part_of, out), out, board=board)


def can_draw(its: FitConfig) -> bool:
    """Whether a member of this configuration can learn from chance all that its encoder has to."""
    return not its.encoder.startswith(OF_TRUTHS) or bool(its.truth_weight)


def _seen(
    its: FitConfig,
    training: Inputs,
    validation: Inputs,
    renders: Inputs | None,
    part_of: Mapping[str, str],
    out: Path,
) -> tuple[Inputs, Inputs]:
    """Training and validation scans as a member is shown them; looks that were made before stay as they are."""
    if not looks(its.encoder) or training.images[0].ndim == 1:
        return training, validation
    if renders is not None:
        training = training.with_more(renders.of(subjects_of(part_of, TRAIN)))
    with ranks.first_one_first():
        return looked_at(its.encoder, training, out), looked_at(its.encoder, validation, out)


def _of_shared_kind(member: FitConfig, config: FitConfig) -> bool:
    """Whether a member's encoder is of the kind that the run shares."""
    return (member.encoder, member.encoder_width) == (config.encoder, config.encoder_width)


def _shared(
    config: FitConfig,
    artifacts: Sequence[Artifact],
    training: Inputs,
    validation: Inputs,
    out: Path,
    earlier: Path | None,
    board: Path | None,
) -> Shared | None:
    """The encoder that members start from: the earlier run's, trained on where the configuration says so."""
    start = earlier / SHARED if earlier else None
    if not config.shared_epochs and not (start and start.is_file()):
        return None
    torch.manual_seed(config.seed)
    shared = Shared(config.encoder, config.encoder_width)
    if start and start.is_file():
        shared.load_state_dict(load_file(start))
    elif earlier and (earlier / PRETRAINED).is_file():
        start_from_pretrained(shared.encoder, config, earlier, "the shared encoder")
    if not config.shared_epochs:
        return shared
    return fit_shared(config, artifacts, shared, training, validation, out, board=board)
