"""The weights on trial become the active ones: one edit of the configuration file, which stays what says what is so."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from qcnode.clock import utc_now
from qcnode.config import Settings, load, parse
from qcnode.ensemble.weights import read_manifest, shipped_folder
from qcnode.errors import ConfigError
from qcnode.intake.disk import sync_folder
from qcnode.ledger.store import Store

_SECTION = re.compile(r"\s*\[")
_ASSESSING = re.compile(r"\s*\[\s*assessing\s*\]\s*(#.*)?")
_KEY = re.compile(r"(\s*)(weights|shadow)(\s*=.*)")


@dataclass(frozen=True)
class Promoted:
    """What took whose place, by the ensembles' ids."""

    file: Path
    before: str
    now: str


def promote(config: Path | None) -> Promoted:
    """Edit the file, at once and only if it then says just that; ConfigError, and nothing is changed, otherwise."""
    settings, named = load(config), config or Path(os.environ.get("QCNODE_CONFIG", ""))
    trial = settings.assessing.on_trial()
    if trial is None or trial.weights is None:
        raise ConfigError("No weights are on trial; name their folder as shadow in [assessing].")
    from qcnode.ensemble.runtime import Ensemble

    now = Ensemble.load(trial.weights, "cpu").id  # each member, its hash checked, in its place
    before = read_manifest(settings.assessing.weights or shipped_folder()).id
    file = named.resolve()
    text = file.read_text(encoding="utf-8")
    edited = swapped(text)
    if not _says(edited, settings):
        raise ConfigError(
            f"{file} is written in a way that this command does not edit; in [assessing] write weights = "
            f"{str(trial.weights)!r}, and take shadow out."
        )
    with Store.open(settings.state) as store:
        _replace(file, edited)
        store.event("weights_promoted", None, {"from": before, "to": now}, utc_now())
    return Promoted(file, before, now)


def swapped(text: str) -> str:
    """The configuration with [assessing] shadow as weights, and what was there as a comment."""
    lines, inside = [], False
    for line in text.splitlines(keepends=True):
        if _SECTION.match(line):
            inside = _ASSESSING.fullmatch(line.rstrip("\r\n")) is not None
        key = _KEY.fullmatch(line.rstrip("\r\n")) if inside else None
        if key is None:
            lines.append(line)
            continue
        end = line[len(line.rstrip("\r\n")) :]
        indent, name, rest = key.groups()
        lines.append(f"{indent}weights{rest}{end}" if name == "shadow" else f"{indent}#weights{rest}{end}")
    return "".join(lines)


def _says(text: str, settings: Settings) -> bool:
    """Whether it is the configuration with the weights on trial in the active ones' place, and nothing else changed."""
    assessing = settings.assessing.model_copy(update={"weights": settings.assessing.shadow, "shadow": None})
    try:
        return parse(text, "the edited file") == settings.model_copy(update={"assessing": assessing})
    except ConfigError:
        return False


def _replace(file: Path, text: str) -> None:
    """Put the text in the file's place, with its owner and rights; it is the old one or the new one at any time."""
    try:
        was = file.stat()
        descriptor, name = tempfile.mkstemp(prefix=".", dir=file.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as out:
                os.fchmod(out.fileno(), was.st_mode & 0o7777)
                if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(out.fileno(), was.st_uid, was.st_gid)
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            Path(name).replace(file)
        finally:
            Path(name).unlink(missing_ok=True)
        sync_folder(file.parent)
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be replaced ({error.strerror}); run this as the user who may write it and its folder."
        ) from error
