"""The weights on disk: a manifest that says what each member is and how good, and one safetensors file a member."""

from __future__ import annotations

import hashlib
import sysconfig
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import INPUT_SHAPES

Extents = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]  # fewest, usual: of slices, rows, columns
MANIFEST = "manifest.json"
CLASSES = tuple(severity.name.lower() for severity in Severity)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Strict):
    """A figure with the 95 % interval of a bootstrap over subjects."""

    value: float
    low: float
    high: float


class Figures(_Strict):
    """How good a member is on subjects that neither its weights nor its epoch were chosen on."""

    subjects: int
    scans: int
    scans_by_severity: tuple[int, int, int]
    macro_f1: Measured
    majority_macro_f1: float  # of always naming the commonest severity
    balanced_accuracy: Measured
    severe_recall: Measured
    quadratic_kappa: Measured
    challenge_mean: float  # mean of LISA 2025's fifteen figures
    challenge_mean_interval: tuple[float, float] | None = None  # low and high, 95 %; older manifests have none
    calibration_error: float  # expected calibration error, ten bins
    calibration_error_interval: tuple[float, float] | None = None


class MemberEntry(_Strict):
    """One artifact's member: where its weights are, how to build it, how it was trained, how good it is."""

    artifact: Artifact
    file: str = Field(pattern=r"^[A-Za-z0-9._-]+\.safetensors$")  # a name in the manifest's folder, never a path
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    encoder: str
    width: int = Field(gt=0)
    ordinal: bool = False  # qcnode.ensemble.model.Member
    input_size: tuple[int, int, int]
    preprocessing: str
    classes: tuple[str, ...] = CLASSES  # of the severity head, in this order
    planes: tuple[str, ...] = tuple(Plane)  # of the plane head, in this order
    temperature: float = Field(1.0, gt=0)  # with bias and emphasis: qcnode.ensemble.calibration
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    emphasis: tuple[float, float, float] = (1.0, 1.0, 1.0)
    extents: Extents | None = None  # of the scans that it knows: qcnode.ensemble.stacks
    training: dict[str, object]  # the configuration of `python -m train fit`
    commit: str
    figures: Figures | None = None  # None only while export is measuring them


class Manifest(_Strict):
    """What the folder holds: seven members and what they were trained for."""

    format: Literal[1] = 1
    id: str
    created: datetime
    severity_definition: str  # what 0, 1 and 2 mean to these weights
    contrasts: frozenset[str]  # those that the members were measured on
    members: tuple[MemberEntry, ...]

    @property
    def preprocessing(self) -> str:
        """What makes the network input of all members."""
        return self.members[0].preprocessing

    @model_validator(mode="after")
    def _one_member_an_artifact(self) -> Manifest:
        if sorted(m.artifact for m in self.members) != sorted(Artifact):
            raise ValueError("there must be exactly one member for each of the seven artifacts")
        for m in self.members:
            if m.preprocessing != self.preprocessing or m.input_size != INPUT_SHAPES.get(m.preprocessing):
                raise ValueError(
                    f"{m.artifact} was trained on {m.preprocessing} {m.input_size}; "
                    f"all must be trained on one of {INPUT_SHAPES}"
                )
            if m.classes != CLASSES or m.planes != tuple(Plane):
                raise ValueError(f"{m.artifact}'s heads name their classes in another order")
        return self


def shipped_folder() -> Path:
    """Where the weights that come with this project lie: in the checkout, else where the wheel put them."""
    places = [Path(__file__).parents[2] / "weights", Path(sysconfig.get_path("data")) / "share" / "qcnode" / "weights"]
    for place in places:
        if (place / MANIFEST).is_file():
            return place
    raise ConfigError(
        f"No {MANIFEST} in {places[0]} or {places[1]}; install the package again, or name a weights folder."
    )


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest; raises ConfigError that names the file and the first thing wrong with it."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); name a folder made by `train export`.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path} does not fit this version at {where or 'top level'}: {first['msg']}.") from error


def verified_file(folder: Path, entry: MemberEntry) -> bytes:
    """The bytes of the member's weights, once their hash is the manifest's; raises ConfigError otherwise."""
    path = folder / entry.file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); copy the whole weights folder again.") from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ConfigError(f"{path} is not the file that {MANIFEST} names; copy the whole weights folder again.")
    return data
