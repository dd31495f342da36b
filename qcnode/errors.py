"""The exceptions, one tree by remedy.

QcnodeError
├── ConfigError      fix the configuration or the command line
├── TransientError   try again: a peer is down, a lock is held
└── PermanentError   record it and go on: trying again gives the same
    ├── NotAssessable   an MR series without a gradable volume; the message says why
    └── Excluded        a series that is not for assessment; the message says why

Each message is one sentence that says what is wrong and what to do; none carries patient data.
"""

import re
import traceback
from pathlib import Path


class QcnodeError(Exception):
    """What this project raises on purpose."""


class ConfigError(QcnodeError):
    """The configuration or the command line needs a person."""


class TransientError(QcnodeError):
    """The same call may go through later."""


class PermanentError(QcnodeError):
    """The same call will fail again."""


class NotAssessable(PermanentError):  # noqa: N818 - the verdict's name
    """The instances hold no volume that the ensemble can grade."""


class Excluded(PermanentError):  # noqa: N818 - the state's name
    """The series is not for assessment: not MR, derived, a localizer, a contrast the ensemble does not cover."""


def trail(error: BaseException) -> str:
    """The way to an unexpected error as file:line, innermost last; never its message, which may quote a header."""
    told = "".join(traceback.format_exception(error))  # that of another process included
    return " ".join(f"{Path(file).name}:{line}" for file, line in re.findall(r'File "([^"]+)", line (\d+)', told))
