"""What the acceptance tests share: nodes that are ended with their test, and a clean scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from peers import FINAL, NodeProcess, free_port, nodes, qcnode, storescu, tool, wait_until

from qcnode.artifacts import Plane
from qcnode.imaging import phantom
from qcnode.imaging.volume import Volume

__all__ = ["FINAL", "NodeProcess", "free_port", "nodes", "qcnode", "storescu", "tool", "wait_until"]


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Nodes that one test starts for itself."""
    with nodes(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def clean_head() -> Volume:
    """A clean synthetic scan."""
    return phantom.head(np.random.default_rng(64), Plane.AXIAL)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One node for all tests that send series of their own: as a site would run it, but for shorter waits."""
    with nodes(tmp_path_factory.mktemp("shared")) as start:
        yield start("[completeness]\ngrace_seconds = 1\nquiet_seconds = 4\n")
