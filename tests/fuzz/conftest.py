"""The fuzz tests share the chaos tests' way to record a sender, and the acceptance tests' node process."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("chaos", "acceptance")]
