"""What several test files share: where the real data lies, and a clean synthetic series."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans, which is not part of the repository."""
    folder = Path(os.environ.get("QCNODE_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data folder is not here; set QCNODE_REAL_DATA to it")
    return folder
