"""One network for all artifacts: what its members say, and that it trains, resumes, is exported and evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lisa_folder import write_lisa_folder
from safetensors.torch import load_file
from torch.nn import functional as F

from qcnode.artifacts import Artifact
from qcnode.ensemble.mambaout import Queried
from train import loop
from train.__main__ import main
from train.config import PRESETS, FitConfig, read_config
from train.losses import shared_losses_of
from train.shared import Shared, new_member

ZHU = FitConfig(encoder="mlmambaout_small", width=4, dropout=0)


def a_network() -> Shared:
    torch.manual_seed(0)
    return Shared("mlmambaout_small", 4).eval()


def test_every_member_says_what_the_network_says_of_its_artifact() -> None:
    shared, images = a_network(), torch.rand(2, 1, 3, 64, 64)
    with torch.no_grad():
        severity, plane = shared(images)
        members = [shared.member(artifact, new_member(ZHU)).eval()(images) for artifact in Artifact]
    for index, output in enumerate(members):
        torch.testing.assert_close(output.severity, severity[:, :, index])
    torch.testing.assert_close(torch.stack([output.plane for output in members]).mean(0), plane)


def test_an_artifacts_loss_reaches_the_maps_that_all_share_and_its_own_decoder_alone() -> None:
    shared = a_network()
    assert isinstance(shared.encoder, Queried)
    shared(torch.rand(1, 1, 2, 64, 64))[0][:, 0, 3].sum().backward()
    first = next(shared.encoder.maps.parameters())
    assert first.grad is not None
    assert first.grad.any()
    for index, decoder in enumerate((shared.encoder.decoder, *shared.decoders)):
        reached = [weight.grad is not None and bool(weight.grad.any()) for weight in decoder.parameters()]
        assert any(reached) is (index == 3)
    queries = [decoder.queries for decoder in (shared.encoder.decoder, *shared.decoders)]
    assert len({tuple(its.flatten().tolist()) for its in queries}) == len(Artifact)


def test_the_shared_losses_weigh_severities_alike_or_follow_zhu() -> None:
    labels = np.array([[0, 2], [0, 1], [1, 0], [2, 0]])
    outputs, target = torch.randn(4, 3), torch.tensor([0, 0, 1, 2])
    plain = F.cross_entropy(outputs, target, reduction="none")
    first, _ = shared_losses_of(FitConfig(), labels)
    torch.testing.assert_close(first(outputs, target).losses, plain * torch.tensor([2 / 3, 2 / 3, 4 / 3, 4 / 3]))
    focal, _ = shared_losses_of(read_config(Path("zhu")), labels)
    torch.testing.assert_close(focal(outputs, target).losses, (1 - torch.exp(-plain)) ** 2 * plain)


class Killed(Exception):  # noqa: N818 - what happened
    """The process is gone."""


def test_zhus_network_is_trained_once_goes_on_and_its_members_are_exported_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    data, config = tmp_path / "lisa", tmp_path / "zhu.toml"
    write_lisa_folder(data, subjects=8)
    preset = (PRESETS / "zhu.toml").read_text()
    preset = preset.replace("shared_epochs = 500", "shared_epochs = 2").replace("blocks = 9", "blocks = 2")
    config.write_text(f'{preset}width = 4\npreprocessing = "blocks-1"\nbf16 = false\n')
    command = ["fit", "--data", str(data), "--config", str(config)]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0

    measure, measured = loop.severity_logits, []

    def measured_and_killed(*args: object, **kwargs: object) -> object:
        measured.append(1)
        if len(measured) == 2:  # in the second epoch
            raise Killed
        return measure(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "severity_logits", measured_and_killed)
    with pytest.raises(Killed):
        main([*command, "--out", str(tmp_path / "killed")])
    assert main([*command, "--out", str(tmp_path / "killed")]) == 0
    assert len(measured) == 2 + 1 + len(Artifact), "the members are measured, and not trained"
    shared = load_file(tmp_path / "whole" / "shared.safetensors")
    for artifact in Artifact:
        whole, killed = (load_file(tmp_path / run / f"{artifact}.safetensors") for run in ("whole", "killed"))
        assert all(torch.equal(whole[key], killed[key]) for key in whole)
        maps = [key for key in whole if key.startswith("encoder.maps.")]
        assert all(torch.equal(whole[key], shared[key].to(whole[key].dtype)) for key in maps)

    out = tmp_path / "weights"
    assert main(["export", "--data", str(data), "--runs", str(tmp_path / "killed"), "--out", str(out)]) == 0
    capsys.readouterr()
    evaluate = ["evaluate", "--data", str(data), "--weights", str(out), "--runs", str(tmp_path / "killed"), "--json"]
    assert main(evaluate) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == list(Artifact)
    assert {its["scans"] for its in found.values()} == {3}
