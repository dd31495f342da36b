"""The short form of the fuzz script, what once failed, and the checks of the checks."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import instances
import pdus
import pytest
import targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import NodeProcess, nodes

KEPT = sorted((Path(__file__).parent / "kept").glob("*.dcm"))
SEEDS = st.integers(0, 2**32)
COSTLY = {"reports": 10, "score": 20}  # examples; of the others, 40
FEW = settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with nodes(tmp_path_factory.mktemp("fuzz")) as start:
        yield start("[completeness]\nquiet_seconds = 5\n[assessing]\nthreads = 1\n")


def test_what_the_files_start_from_is_gradable(tmp_path: Path) -> None:
    for series in instances.series():
        assert targets.run("volume", series, tmp_path)
    assert targets.run("reports", instances.series()[0], tmp_path)


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.stem)
def test_what_once_failed_ends_soon_in_a_result_or_one_of_our_errors(kept: Path, tmp_path: Path) -> None:
    for name in targets.TARGETS:
        began = time.process_time()
        targets.run(name, [kept.read_bytes()], tmp_path)
        assert time.process_time() - began < 1.0, name


@pytest.mark.parametrize("name", targets.TARGETS)
def test_damaged_files_end_in_a_result_or_one_of_our_errors(name: str, tmp_path: Path) -> None:
    ended = []

    @settings(FEW, max_examples=COSTLY.get(name, 40))
    @given(SEEDS)
    def run(seed: int) -> None:
        ended.append(targets.run(name, instances.damaged(random.Random(seed)), tmp_path))

    run()
    assert any(ended), "nothing came through: the damage is too coarse to reach what lies behind the parser"


@pytest.mark.real_data
def test_damaged_real_files_do_too(real_data: Path, tmp_path: Path) -> None:
    @FEW
    @given(SEEDS)
    def run(seed: int) -> None:
        damaged = instances.damaged(random.Random(seed), real_data / "dicom")
        for name in ("facts", "eligible", "volume"):
            targets.run(name, damaged, tmp_path)

    run()


def test_damaged_associations_are_ended_and_the_node_goes_on(node: NodeProcess) -> None:
    answered = []

    @FEW
    @given(SEEDS)
    def run(seed: int) -> None:
        answered.append(pdus.played(node.port, pdus.damaged(random.Random(seed))))

    run()
    assert len({one.types for one in answered}) > 3, "the damage always met the same answer"
    for stream in pdus.streams():
        whole = pdus.played(node.port, stream)
        assert whole.types[0] == 0x02, "accepted"
        assert whole.types[-1] == 0x06, "and released"
    assert "Exception in thread" not in node.log
