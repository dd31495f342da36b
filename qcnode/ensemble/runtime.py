"""The ensemble at work: a network input in, seven grades out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.calibration import Calibration, named, probabilities
from qcnode.ensemble.explanation import carrying_slices
from qcnode.ensemble.model import Member, channels_last
from qcnode.ensemble.stacks import laid_out
from qcnode.ensemble.weights import Manifest, MemberEntry, read_manifest, shipped_folder, verified_file
from qcnode.errors import ConfigError
from qcnode.imaging.preprocess import INPUT_SHAPES
from qcnode.verdict import Grade


class Ensemble:
    """Seven members in memory, ready to grade; made by `Ensemble.load`."""

    def __init__(self, manifest: Manifest, members: dict[Artifact, Member], device: torch.device, threads: int) -> None:
        self.manifest = manifest
        self.id = manifest.id
        self.contrasts = manifest.contrasts
        self.preprocessing = manifest.preprocessing
        self.device = device
        self._members = members
        self._extents = {m.artifact: m.extents for m in manifest.members}
        self._calibration = {m.artifact: Calibration(m.temperature, m.bias, m.emphasis) for m in manifest.members}
        # A thread for a member, not all threads for each: where another process wants a core too, threads that share
        # an operation wait for the slowest of them after every operation, and one grade takes ten times as long.
        at_once = min(threads, len(members)) if device.type == "cpu" else 1
        self._threads = ThreadPoolExecutor(at_once, "member", torch.set_num_threads, (max(1, threads // at_once),))

    @classmethod
    def load(cls, folder: Path | None = None, device: str = "auto", threads: int | None = None) -> Ensemble:
        """The members of `folder` (None: the shipped ones), each checked against its hash before a byte is used.

        device: "auto" (CUDA where there is one, else CPU) or a torch device. threads: of torch on the CPU; None leaves
        torch's own choice. Raises ConfigError that names the file and the remedy.
        """
        folder = folder or shipped_folder()
        manifest = read_manifest(folder)
        target = _device(device)
        members = {entry.artifact: load_member(folder, entry).to(target) for entry in manifest.members}
        return cls(manifest, members, target, threads or torch.get_num_threads())

    def grade(self, network_input: NDArray[np.float32]) -> dict[Artifact, Grade]:
        """Each artifact's severity and the probabilities of all three, for one scan's network input."""
        grades = {}
        for artifact, logits in self.logits(network_input).items():
            calibration = self._calibration[artifact]
            found = probabilities(logits, calibration)
            none, moderate, severe = (float(p) for p in found)
            grades[artifact] = Grade(Severity(int(named(found, calibration.emphasis))), (none, moderate, severe))
        return grades

    def located(
        self, grades: Mapping[Artifact, Grade], network_input: NDArray[np.float32], shown: NDArray[np.intp]
    ) -> dict[Artifact, Grade]:
        """The grades of this network input, those above none with the slices that carry them.

        shown: for each slice of the volume, the input's that shows it, as `shown_slices` has it.
        """
        images, located = self._batch(network_input), dict(grades)
        for artifact, grade in grades.items():
            if grade.severity:
                slices = carrying_slices(self._members[artifact], artifact, images, shown, self._threads.map)
                located[artifact] = replace(grade, slices=slices)
        return located

    def logits(
        self, network_input: NDArray[np.float32], artifacts: Collection[Artifact] | None = None
    ) -> dict[Artifact, NDArray[np.float32]]:
        """What each member's severity head, or these artifacts' alone, says, (3,), before calibration."""
        asked = self._members.keys() if artifacts is None else artifacts
        images = self._batch(network_input)
        laid = {known: laid_out(images, known) for known in {self._extents[artifact] for artifact in asked}}

        def said(artifact: Artifact) -> NDArray[np.float32]:
            with torch.inference_mode():
                output = self._members[artifact](laid[self._extents[artifact]])
                logits: NDArray[np.float32] = output.severity[0].cpu().numpy()
                return logits

        return dict(zip(asked, self._threads.map(said, asked), strict=True))

    def plane(self, network_input: NDArray[np.float32]) -> Plane:
        """The plane that most members' second heads name; a check of the preprocessing, not of the scan."""
        images = self._batch(network_input)
        with torch.inference_mode():
            votes = sum(member(images).plane[0].softmax(0).cpu() for member in self._members.values())
        return tuple(Plane)[int(torch.as_tensor(votes).argmax())]

    def _batch(self, network_input: NDArray[np.float32]) -> Tensor:
        if network_input.shape != (shape := INPUT_SHAPES[self.preprocessing]):
            raise ValueError(f"a network input has shape {shape}, not {network_input.shape}")
        images = torch.from_numpy(np.ascontiguousarray(network_input, np.float32))[None, None]
        return images.to(self.device).contiguous(memory_format=torch.channels_last_3d)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f'This machine has no device "{name}"; set the device to "auto" or "cpu".') from error


def load_member(folder: Path, entry: MemberEntry) -> Member:
    """The member that the entry describes, its hash checked, its weights widened to float32; raises ConfigError."""
    member = Member(entry.encoder, entry.width, ordinal=entry.ordinal)
    try:
        tensors = load_tensors(verified_file(folder, entry))
        member.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    except (SafetensorError, RuntimeError) as error:
        raise ConfigError(f"{folder / entry.file} does not fit its encoder; export the weights again.") from error
    return channels_last(member.eval())
