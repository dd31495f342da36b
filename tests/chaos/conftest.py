"""The chaos tests stand on the acceptance tests' peers: a node in a process of its own, and what listens around it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "acceptance"))
