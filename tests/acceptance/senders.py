"""Ways to send real files to a node exactly as they are, and DCMTK's receiver to tell what its sender really sent."""

from __future__ import annotations

import hashlib
import re
import subprocess
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from peers import FINAL, NodeProcess, free_port, storescu, tool, wait_until
from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config

from qcnode.imaging.swoop import swoop_series, to_bytes
from qcnode.imaging.volume import Volume
from qcnode.ledger.models import Series
from qcnode.ledger.store import Store
from qcnode.states import State

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def swoop(head: Volume, seed: int, **elements: object) -> Dataset:
    """A Swoop object with UIDs of its own, drawn from the seed; `elements` replace what it has."""
    ds = swoop_series(head, patient_id=f"P-{seed}", generator=np.random.default_rng(seed))
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def files(folder: Path, *instances: Dataset | bytes) -> list[Path]:
    """The instances as files, in their order, beside what the folder holds."""
    paths = []
    for number, instance in enumerate(instances, len(list(folder.iterdir()))):
        paths.append(folder / f"{number:04d}.dcm")
        paths[-1].write_bytes(instance if isinstance(instance, bytes) else to_bytes(instance))
    return paths


def header(path: Path) -> Dataset:
    """The data set without its pixels."""
    return dcmread(path, stop_before_pixels=True)


def renamed(paths: Sequence[Path], folder: Path, case: str) -> list[Path]:
    """Copies of the files, the same byte for byte but for their UIDs, which are of the same length and the case's own.

    Files of one series stay files of one series; several files that share UIDs can so be sent to one node.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for number, path in enumerate(paths):
        data, old = path.read_bytes(), header(path)
        for keyword in UIDS:
            uid = str(old[keyword].value)
            data = data.replace(uid.encode(), _uid_like(uid, case).encode())
        copies.append(folder / f"{case}-{number:04d}.dcm")
        copies[-1].write_bytes(data)
    return copies


def storescu_as_it_is(port: int, paths: Sequence[Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """DCMTK's sender, over one association that proposes each file's SOP class in the file's own transfer syntax.

    It goes on after a refusal, and prints the status of each.
    """
    profile = folder / "storescu.cfg"
    profile.write_text(_profile(paths))
    return storescu(port, "-v", "--no-halt", "--config-file", profile, "Default", *paths)


def stored(done: subprocess.CompletedProcess[str]) -> int:
    """How many of the files DCMTK's sender saw acknowledged with Success."""
    return len(re.findall(r"Received Store Response \(Success\)", done.stdout + done.stderr))


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """DCMTK's receiver, which writes what it receives bit for bit into the folder; yields its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [tool("storescp"), "--quiet", "--bit-preserving", "--accept-all", "-od", str(folder), str(port)]
    process = subprocess.Popen(command)
    try:
        echo = [tool("echoscu"), "127.0.0.1", str(port)]
        wait_until(lambda: subprocess.run(echo, capture_output=True).returncode == 0, 20, "the start of storescp")
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


def send_bytes(port: int, paths: Sequence[Path], calling: str = "SWOOP1") -> list[Dataset]:
    """The status with which the node answered each file's data set, sent as its bytes are, however damaged."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # pydicom's, of what is wrong with the files
        patch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
        ae = AE(ae_title=calling)
        metas = [read_file_meta_info(path) for path in paths]
        for sop_class, syntax in sorted({(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID) for meta in metas}):
            ae.add_requested_context(sop_class, syntax)
        association = ae.associate("127.0.0.1", port, ae_title="QCNODE")
        assert association.is_established
        try:
            return [association.send_c_store(path) for path in paths]
        finally:
            association.release()


def data_set(part10: bytes) -> bytes:
    """What follows the file meta information (PS3.10 Section 7.1)."""
    assert part10[128:136] == b"DICM\x02\x00\x00\x00"
    return part10[144 + int.from_bytes(part10[140:144], "little") :]


def spooled(node: NodeProcess, path: Path) -> Path:
    """Where the node keeps the instance of this file."""
    ds = header(path)
    return node.state / "spool" / str(ds.SeriesInstanceUID) / f"{ds.SOPInstanceUID}.dcm"


def all_finished(node: NodeProcess, series_uids: Iterable[str], seconds: float = 240.0) -> dict[str, Series]:
    """These series, once each came to an end."""
    wanted = set(series_uids)

    with Store(f"sqlite:///{node.state / 'ledger.sqlite3'}") as store:

        def look() -> dict[str, Series] | None:
            found = {one.series_instance_uid: one for one in store.overview.recent(1000)}
            ended = {uid for uid in wanted if uid in found and found[uid].state in FINAL}
            return {uid: found[uid] for uid in wanted} if ended == wanted else None

        ended = wait_until(look, seconds, f"the end of {len(wanted)} series")
        assert isinstance(ended, dict)
        return ended


def with_event(node: NodeProcess, series_uid: str, kind: str, seconds: float = 30.0) -> Series:
    """The series, once such an event of it is recorded."""

    def look() -> Series | None:
        series = node.series(series_uid)
        return series if series is not None and any(event.kind == kind for event in series.events) else None

    found = wait_until(look, seconds, f"the event {kind}")
    assert isinstance(found, Series)
    return found


def outcome(series: Series) -> str:
    """The state, or the verdict of an assessed series, and the reason: "not_assessable: Slice 9 is missing."."""
    if series.state is State.ASSESSED and series.latest is not None:
        return f"{series.latest.decision.value}: {' '.join(series.latest.reasons)}"
    return f"{series.state.value}: {series.reason}"


def _uid_like(uid: str, case: str) -> str:
    digits = str(int(hashlib.sha256(f"{case} {uid}".encode()).hexdigest(), 16))
    return f"1.2.{digits[: len(uid) - 4]}"


def _profile(paths: Sequence[Path]) -> str:
    metas = [header(path).file_meta for path in paths]
    pairs = sorted({(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID) for meta in metas})
    syntaxes = sorted({syntax for _, syntax in pairs})
    lines = ["[[TransferSyntaxes]]"]
    for number, syntax in enumerate(syntaxes, 1):
        lines += [f"[Syntax{number}]", f"TransferSyntax1 = {syntax}"]
    lines += ["[[PresentationContexts]]", "[All]"]
    for number, (sop_class, syntax) in enumerate(pairs, 1):
        lines.append(f"PresentationContext{number} = {sop_class}\\Syntax{syntaxes.index(syntax) + 1}")
    lines += ["[[Profiles]]", "[Default]", "PresentationContexts = All", ""]
    return "\n".join(lines)
