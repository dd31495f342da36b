"""Batches are the same however many cores make them, before or between the uses of one another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qcnode.artifacts import Artifact, Plane
from train.config import FitConfig
from train.dataset import Inputs, Scan, inputs
from train.sampling import feed


@pytest.fixture(scope="module")
def data() -> Inputs:
    generator = np.random.default_rng(0)
    scans = [Scan(Path(f"LISA_{n:04d}_LF_axi.nii.gz"), f"LISA_{n:04d}", Plane.AXIAL, (n % 3,) * 7) for n in range(6)]
    return inputs(scans, [generator.random((40, 144, 144)).astype(np.float16) for _ in scans])


@pytest.mark.parametrize("artifacts", [frozenset({Artifact.BANDING}), frozenset(Artifact)])
def test_batches_do_not_depend_on_who_makes_them(
    data: Inputs, artifacts: frozenset[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, batches = FitConfig(redraw=0.5), [np.array([0, 1, 2, 3]), np.array([4, 5, 0, 2])]
    found = []
    for cores, takes_all in ((1, True), (3, True), (2, False)):
        monkeypatch.setattr(feed, "_cores", lambda cores=cores: cores)
        monkeypatch.setattr(feed, "_takes_all_cores", lambda takes_all=takes_all: takes_all)
        found.append(list(feed.fed(data, batches, artifacts, config, np.random.default_rng(7), "test")))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
    assert not torch.equal(found[0][0].images, found[0][1].images)


def test_a_network_that_leaves_a_core_free_is_fed_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(feed, "_cores", lambda: 2)
    monkeypatch.setattr(feed, "device", lambda: torch.device("cpu"))
    assert feed._takes_all_cores()
    monkeypatch.setattr(feed, "_cores", lambda: 3)
    assert not feed._takes_all_cores()
    monkeypatch.setattr(feed, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(feed, "_cores", lambda: 1)
    assert not feed._takes_all_cores()


def test_a_processor_that_would_emulate_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {True: torch.bfloat16, False: torch.float32}
    for native, asked in ((True, True), (True, False), (False, True)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda native=native: native)
        with feed.autocast(asked):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is said[native and asked]
