"""How a training run is set up: one TOML file, every key of it, and what the command line may override."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qcnode.artifacts import Artifact
from qcnode.errors import ConfigError


class FitConfig(BaseModel):
    """What `python -m train fit` needs to know beside the data; it travels with every checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = "compact-resnet"
    width: int = Field(16, gt=0)
    seed: int = 1
    shared_epochs: int = Field(0, ge=0)  # of one encoder on all seven artifacts, from which every member then starts
    shared_learning_rate: float = 1e-3
    shared_redraw: float = Field(0.0, ge=0, le=1)  # share of scans without it to which an artifact is added
    epochs: int = Field(20, ge=0)  # of each member
    learning_rate: float = 1e-3  # the highest; it warms up and anneals to zero
    weight_decay: float = 1e-4
    batching: Literal["rotating", "standard"] = "rotating"
    blocks: int = Field(2, gt=0)  # rotating blocks of four in one batch; a standard batch has as many scans
    reweight: bool = True
    bf16: bool = True  # autocast; the shipped figures are measured in float32
    redraw: float = Field(0.0, ge=0, le=1)  # share of a member's scans on which its artifact is drawn anew
    intensity_jitter: float = 0.05  # standard deviation of the log of a scan's intensity scale
    gamma_jitter: float = 0.2  # of the log of its exponent, where no trained artifact is a matter of intensity
    members: dict[Artifact, dict[str, Any]] = {}  # what is different for the member of an artifact

    def of(self, artifact: Artifact) -> FitConfig:
        """The configuration of one artifact's member."""
        return FitConfig.model_validate(self.model_dump(exclude={"members"}) | self.members.get(artifact, {}))


def read_config(path: Path | None, **overrides: object) -> FitConfig:
    """The configuration in the TOML file (None: the defaults), with the overrides that are not None on top."""
    try:
        values = tomllib.loads(path.read_text()) if path else {}
        return FitConfig.model_validate(values | {key: value for key, value in overrides.items() if value is not None})
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); name an existing file.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{path or 'The options'}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
