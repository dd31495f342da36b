"""How a training run is set up: one TOML file, every key of it, and what the command line may override."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qcnode.artifacts import Artifact
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import BLOCKS, CUBE, INPUT_SHAPES, PREPROCESSING

OF_TRUTHS = "tissue-unet"
_WITHOUT_MAPS = (
    "mirror-resnet",
    "plane-profiles",
    "tile-profiles",
    "head-resnet",
    "atlas-resnet",
    "field-unet",
    OF_TRUTHS,
    "lou-cnn",
    "mambaout",
    "mlmambaout",
)  # not of the scan's own grid, or of one size only
_LOOKS = ("mirror-resnet", "plane-profiles", "head-resnet", "atlas-resnet", "field-unet")
_OF_INTENSITIES = ("compact-resnet", OF_TRUTHS, "tile-profiles", *_LOOKS)  # and of their places, in mm
PRESETS = Path(__file__).parent / "presets"
_PRETRAININGS_OWN = {"pretrain_epochs", "pretrain_batch", "pretrain_learning_rate", "temperature"}
_SHAREDS_OWN = {"members", "shared_epochs", "shared_learning_rate", "shared_loss", "shared_redraw"}
_MEMBERS_OWN = {
    "members",
    "epochs",
    "epoch_steps",
    "learning_rate",
    "batching",
    "reweight",
    "redraw",
    "redraw_others",
    "loss",
    "label_smoothing",
    "mask_weight",
    "measure_weight",
    "truth_weight",
    "start_share",
    "frozen",
    "dropout",
}


class FitConfig(BaseModel):
    """What `python -m train fit` needs to know beside the data; it travels with every checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Literal["network", "forest"] = "network"  # forest: of image-quality metrics; then only `seed` matters
    encoder: str = "compact-resnet"
    width: int | None = Field(None, gt=0)  # None: the encoder's own
    preprocessing: str = PREPROCESSING  # or "cube-1": 128 x 128 x 128, z-scored; or "blocks-1"
    seed: int = 1
    shared_epochs: int = Field(0, ge=0)  # of one encoder on all seven artifacts, from which every member then starts
    shared_learning_rate: float = 1e-3
    shared_loss: Literal["weighted", "focal"] = (
        "weighted"  # so that an artifact's severities weigh alike; or as they are
    )
    shared_redraw: float = Field(0.0, ge=0, le=1)  # share of scans without it to which an artifact is added
    pretrain_epochs: int = Field(100, gt=0)  # of `pretrain`: the encoder, on scans without labels
    pretrain_batch: int = Field(16, gt=1)  # scans that are told apart at a time, each in two views
    pretrain_learning_rate: float = 1e-3
    temperature: float = Field(0.9, gt=0)  # of the similarity of views
    epochs: int = Field(20, ge=0)  # of each member
    epoch_steps: int | None = Field(None, gt=0)  # of a member's epoch; None: as many as the batching makes of its scans
    learning_rate: float = 1e-3  # the highest
    schedule: Literal["one-cycle", "cosine"] = "one-cycle"  # both anneal to zero; the first warms up
    loss: Literal["cross-entropy", "weighted", "focal", "corn"] = "cross-entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1)  # of the cross-entropy
    plane_weight: float = Field(1.0, ge=0)  # of naming the plane, the second task, beside the severity's loss
    measure_weight: float = Field(0.0, ge=0)  # of naming what was measured, a third task on simulated scans
    field_weight: float = Field(0.0, ge=0)  # of drawing what a render knows of every place, with "field-unet"
    truth_weight: float = Field(0.0, ge=0)  # of drawing what a scan was simulated with (train/sampling/truth.py)
    mask_weight: float = Field(0.0, ge=0)  # of finding the brain, a third task on the scans that have a mask
    weight_decay: float = 1e-4
    dropout: float = Field(0.3, ge=0, lt=1)  # of the features, before the heads
    batching: Literal["rotating", "standard"] = "rotating"
    blocks: int = Field(2, gt=0)  # rotating blocks of four in one batch; a standard batch has as many scans
    reweight: bool = True
    bf16: bool = True  # autocast, where the device computes in it; the shipped figures are measured in float32
    redraw: float = Field(0.0, ge=0, le=1)  # share of a member's scans on which its artifact is drawn anew
    redraw_others: float = Field(0.0, ge=0, le=1)  # of these, with "tissue-unet": get motion, and bands
    variation: Literal["full", "half-turn", "none"] = (
        "full"  # of scans, from epoch to epoch: train/sampling/variation.py
    )
    emptied: float = Field(0.0, ge=0, le=1)  # share of scans seen as if their background were zero, beside the above
    intensity_jitter: float = 0.05  # standard deviation of the log of a scan's intensity scale
    gamma_jitter: float = 0.2  # of the log of its exponent, where no trained artifact is a matter of intensity
    sharpness_jitter: float = Field(0.0, ge=0)  # of the log of its details, where no trained artifact is one of them
    frozen: bool = False  # the encoder stays as --start or --init gives it, and only the heads learn
    start_share: float = Field(0.0, ge=0, lt=1)  # of the weights that a member begins with, in those that are kept
    members: dict[Artifact, dict[str, Any]] = {}  # what is different for the member of an artifact

    @model_validator(mode="after")
    def _smoothing_has_its_loss(self) -> FitConfig:
        if self.label_smoothing and self.loss != "cross-entropy":
            raise ValueError(f'label_smoothing goes with loss = "cross-entropy", not "{self.loss}"')
        return self

    @model_validator(mode="after")
    def _masks_have_maps(self) -> FitConfig:
        if self.mask_weight and self.encoder.startswith(_WITHOUT_MAPS):
            raise ValueError(f"{self.encoder} has no maps to find the brain in; set its mask_weight to 0")
        return self

    @model_validator(mode="after")
    def _looks_are_made_once(self) -> FitConfig:
        if self.redraw and self.encoder in _LOOKS:
            raise ValueError(f"{self.encoder} looks at each scan once; set redraw to 0, and give `fit` --renders")
        if self.emptied and self.encoder in _LOOKS:
            raise ValueError(f"{self.encoder} looks at each scan once; set emptied to 0")
        if self.sharpness_jitter and self.encoder in _LOOKS:
            raise ValueError(f"{self.encoder} looks at each scan once; set sharpness_jitter to 0")
        if self.field_weight and self.encoder != "field-unet":
            raise ValueError(f"{self.encoder} draws no fields; set field_weight to 0")
        if self.redraw_others and self.encoder != OF_TRUTHS:
            raise ValueError(f"{self.encoder} is given no others beside its own artifact; set redraw_others to 0")
        if self.truth_weight and self.encoder != OF_TRUTHS:
            raise ValueError(f"{self.encoder} draws no truth; set truth_weight to 0")
        if self.mask_weight and self.measure_weight:
            raise ValueError("mask_weight and measure_weight are two third tasks; set one of them to 0")
        return self

    @model_validator(mode="after")
    def _inputs_are_known_and_fit(self) -> FitConfig:
        if self.preprocessing not in INPUT_SHAPES:
            raise ValueError(f'there is no preprocessing "{self.preprocessing}"; choose from {", ".join(INPUT_SHAPES)}')
        if self.preprocessing in (CUBE, BLOCKS) and (self.variation == "full" or self.redraw or self.shared_redraw):
            raise ValueError(
                f'with preprocessing = "{self.preprocessing}", nothing is redrawn, and variation is "half-turn"'
                ' or "none"'
            )
        if self.emptied and self.variation != "full":
            raise ValueError('emptied goes with variation = "full"; set one or the other')
        if self.sharpness_jitter and self.variation != "full":
            raise ValueError('sharpness_jitter goes with variation = "full"; set one or the other')
        if self.preprocessing == CUBE and self.model == "network" and self.encoder.startswith(_OF_INTENSITIES):
            raise ValueError(f'{self.encoder} reckons with intensities above zero; name another for "{CUBE}"')
        if self.truth_weight and self.preprocessing != PREPROCESSING:
            raise ValueError(f'truth_weight goes with preprocessing = "{PREPROCESSING}", not "{self.preprocessing}"')
        for key in ("model", "preprocessing"):
            if any(key in its for its in self.members.values()):
                raise ValueError(f"{key} is the same for all members; set it above them")
        return self

    @model_validator(mode="after")
    def _members_are_configurations(self) -> FitConfig:
        for artifact in self.members:
            try:
                self.of(artifact)
            except ValidationError as error:
                raise ValueError(f"members.{artifact}: {_first(error)}") from error
        return self

    @property
    def encoder_width(self) -> int:
        """The width to build; raises ConfigError for an encoder that there is not."""
        from qcnode.ensemble.networks import own_width

        return self.width or own_width(self.encoder)

    @property
    def ordinal(self) -> bool:
        """Whether the severity head answers CORN's two questions."""
        return self.loss == "corn"

    @property
    def kind(self) -> tuple[str, int, bool]:
        """What decides whether weights fit: the encoder, its width, and whether the head is ordinal."""
        return self.encoder, self.encoder_width, self.ordinal

    def of_pretraining(self) -> dict[str, object]:
        """What a pre-trained encoder depends on."""
        others = {"encoder", "width", "preprocessing", "seed", "weight_decay", "bf16", "intensity_jitter"}
        return self.model_dump(mode="json", include=_PRETRAININGS_OWN | others)

    def of_shared(self) -> dict[str, object]:
        """What the shared encoder depends on."""
        return self.model_dump(mode="json", exclude=_MEMBERS_OWN | _PRETRAININGS_OWN)

    def of_member(self) -> dict[str, object]:
        """What a member depends on, beside the weights that it starts from."""
        return self.model_dump(mode="json", exclude=_SHAREDS_OWN | _PRETRAININGS_OWN)

    def going_on_from(self, kinds: Mapping[Artifact, tuple[str, int, bool]]) -> FitConfig:
        """With members of these kinds (`kind`), but for those whose encoder or width it names.

        Raises ConfigError where something else that it sets does not go with such an encoder.
        """
        members = dict(self.members)
        for artifact, (encoder, width, ordinal) in kinds.items():
            its = members.get(artifact, {})
            named = self.model_fields_set | its.keys()
            if not named & {"encoder", "width"}:
                loss = {"loss": "corn"} if ordinal and "loss" not in named else {}
                members[artifact] = {"encoder": encoder, "width": width} | loss | its
        try:
            return FitConfig.model_validate(self.model_dump(exclude_unset=True) | {"members": members})
        except ValidationError as error:
            raise ConfigError(f"The configuration does not go with the weights: {_first(error)}.") from error

    def of(self, artifact: Artifact) -> FitConfig:
        """The configuration of one artifact's member."""
        return FitConfig.model_validate(self.model_dump(exclude={"members"}) | self.members.get(artifact, {}))


def read_config(path: Path | None, **overrides: object) -> FitConfig:
    """The configuration in the TOML file (None: the defaults), with the overrides that are not None on top.

    A name without a suffix is a preset's: `briqa` is train/presets/briqa.toml.
    """
    if path and path.name == str(path) and not path.suffix:
        path = PRESETS / f"{path}.toml"
    try:
        values = tomllib.loads(path.read_text()) if path else {}
        return FitConfig.model_validate(values | {key: value for key, value in overrides.items() if value is not None})
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); name an existing file.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
    except ValidationError as error:
        raise ConfigError(f"{path or 'The options'}: {_first(error)}.") from error


def _first(error: ValidationError) -> str:
    """The key, if it is one key's, and what is wrong with it."""
    first = error.errors(include_url=False)[0]
    return ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"].removeprefix("Value error, ")])
