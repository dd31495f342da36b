"""Two members of an artifact are one whose logits are the mean of theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qcnode.ensemble.model import Member
from train.__main__ import main
from train.checkpoint import tensors_of


def member_in(run: Path, encoder: str, *, width: int = 4, ordinal: bool = False, emptied: float = 0.0) -> Member:
    torch.manual_seed(len(encoder))
    member = Member(encoder, width, ordinal=ordinal).eval()
    run.mkdir()
    save_file(tensors_of(member), run / "Contrast.safetensors")
    record = {"artifact": "Contrast", "encoder": encoder, "width": width, "ordinal": ordinal, "commit": "c"}
    record |= {"training": {"encoder": encoder, "emptied": emptied}}
    (run / "Contrast.json").write_text(json.dumps(record))
    return member


def test_its_logits_are_the_mean_of_both(tmp_path: Path) -> None:
    members = [member_in(tmp_path / "a", "tissue-unet", emptied=0.2), member_in(tmp_path / "b", "mirror-resnet")]
    command = ["join", str(tmp_path / "a"), str(tmp_path / "b"), "--artifact", "Contrast"]
    assert main([*command, "--out", str(tmp_path / "c")]) == 0
    record = json.loads((tmp_path / "c" / "Contrast.json").read_text())
    assert record["encoder"] == "tissue-unet&mirror-resnet"
    assert record["training"]["emptied"] == 0.2
    assert [its["encoder"] for its in record["training"]["joined"]] == ["tissue-unet", "mirror-resnet"]
    joined = Member(record["encoder"], record["width"]).eval()
    joined.load_state_dict(load_file(tmp_path / "c" / "Contrast.safetensors"))  # strictly
    images = torch.rand(2, 1, 40, 144, 144)
    with torch.no_grad():
        whole, *apart = (member(images) for member in (joined, *members))
    for head in ("severity", "plane"):
        mean = torch.stack([getattr(each, head) for each in apart]).mean(0)
        torch.testing.assert_close(getattr(whole, head), mean, atol=1e-4, rtol=1e-4)


def test_members_that_differ_in_kind_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    member_in(tmp_path / "a", "tissue-unet")
    member_in(tmp_path / "b", "tissue-unet", ordinal=True)
    member_in(tmp_path / "d", "tissue-unet", width=2)
    command = ["join", str(tmp_path / "a"), "--artifact", "Contrast", "--out", str(tmp_path / "c")]
    for other, words in (("b", "one is ordinal"), ("d", "differ in width"), ("e", "has no member for Contrast")):
        assert main([*command, str(tmp_path / other)]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
