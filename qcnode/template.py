"""Settings → the commented configuration that `qcnode init` writes; made from the model, so no key can be missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from qcnode.config import Alert, Destination, Settings

_MODELS: dict[str, type[BaseModel]] = {"destinations": Destination, "alerts": Alert}
_EXAMPLES: dict[str, dict[str, Any]] = {
    "destinations": {"name": "pacs", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": 4242},
    "alerts": {"url": "json://127.0.0.1:9000/rescan"},
}
_POLICY = """\
# What an artifact's grade means. For each artifact: `review` and `rescan`, each with the severity that triggers it
# (1 moderate, 2 severe) and, if wanted, the probability of that severity or worse that is needed instead of the grade.
# The default for all seven is: review = { severity = 1 }, rescan = { severity = 2 }.
#[policy.Motion]
#rescan = { severity = 2, probability = 0.4 }
"""


def commented_configuration() -> str:
    """The whole configuration as TOML: each key with its meaning and its default, all of it commented out."""
    parts = [
        "# qcnode configuration. Every key is shown with its default; remove the # in front of a key to change it.\n"
    ]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if name == "policy":
            parts.append(_POLICY)
        elif isinstance(default, BaseModel):
            parts.append(_section(f"[{name}]", field.description, type(default), {}))
        else:
            model = _MODELS[name]
            parts.append(_section(f"[[{name}]]", field.description, model, _EXAMPLES[name]))
    return "\n".join(parts)


def _section(title: str, meaning: str | None, model: type[BaseModel], example: Mapping[str, Any]) -> str:
    lines = [f"# {meaning}", f"#{title}" if example else title]
    for key, field in model.model_fields.items():
        value = example.get(key, field.get_default(call_default_factory=True))
        lines += [f"# {field.description}", f"#{key} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if value is None:
        return '""  # not set'
    if isinstance(value, BaseModel):
        return _toml(value.model_dump(exclude_none=True))
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, Enum | Path):
        return json.dumps(str(value))
    return json.dumps(value)
