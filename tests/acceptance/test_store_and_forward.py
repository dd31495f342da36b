"""Store-and-forward through a real node: the console knows one destination, the archive gets all, as it was sent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from archives import counting_archive, data_set, destination
from peers import NodeProcess, free_port, qcnode, storescu, wait_until
from pydicom import dcmread

from qcnode.imaging.swoop import classic_series, to_bytes
from qcnode.imaging.volume import Volume
from qcnode.states import DeliveryState

sys.path.insert(0, str(Path(__file__).parents[1]))
from certificates import authority, identity, needs_openssl
from delivery_peers import needs_dcmtk, storescp

IMAGES = 'send = ["images", "report"]'


def slices(head: Volume, folder: Path, seed: int) -> tuple[str, dict[str, Path]]:
    """A classic series on disk: its UID, and the files by SOP Instance UID."""
    folder.mkdir()
    files = {}
    for one in classic_series(head, patient_id="P1", generator=np.random.default_rng(seed)):
        files[str(one.SOPInstanceUID)] = folder / f"{one.InstanceNumber}.dcm"
        files[str(one.SOPInstanceUID)].write_bytes(to_bytes(one))
    return str(one.SeriesInstanceUID), files


def delivered(node: NodeProcess, count: int) -> Callable[[], bool]:
    """Whether so many deliveries have ended well, and none is left."""

    def look() -> bool:
        states = node.status()["deliveries"]
        return bool(states == {DeliveryState.SENT.value: count})

    return look


@needs_openssl
@needs_dcmtk
def test_an_archive_behind_tls_gets_every_image_byte_for_byte_and_the_report(
    start_node: Callable[..., NodeProcess], clean_head: Volume, tmp_path: Path
) -> None:
    trusted = authority(tmp_path)
    archive, ours = identity(tmp_path, "archive", trusted), identity(tmp_path, "node", trusted)
    port, console_port = free_port(), free_port()
    tls = (
        f'tls = true\ntls_ca = "{trusted.certificate}"\ntls_certificate = "{ours.certificate}"\n'
        f'tls_key = "{ours.key}"\n'
    )
    node = start_node(
        destination("pacs", "ARCHIVE", port, tls + IMAGES)
        + destination("console", "SWOOP1", console_port, IMAGES)
        + "[completeness]\ngrace_seconds = 0.5\n"
    )
    series_uid, files = slices(clean_head, tmp_path / "sent", 7)
    with counting_archive(console_port) as console:
        assert storescu(node.port, *files.values()).returncode == 0
        # The archive is down: the node is killed with everything still due, and starts again.
        wait_until(lambda: node.status()["deliveries"].get("pending", 0) > len(files), 60, "the verdict")
        node.kill()
        node.start()
        options = ["+tls", str(archive.key), str(archive.certificate), "+cf", str(trusted.certificate), "+B", "+xa"]
        with storescp(tmp_path / "in", port, *options):
            wait_until(delivered(node, len(files) + 2), 90, "the delivery of all")
        arrived = {str(dcmread(path).SOPInstanceUID): path for path in (tmp_path / "in").iterdir()}
        series = node.series(series_uid)
        assert series is not None
        assert series.latest is not None
        report = next(d for d in series.latest.documents if d.kind == "report")
        assert set(arrived) == {*files, str(report.sop_instance_uid)}
        for uid, file in files.items():
            assert data_set(arrived[uid].read_bytes()) == data_set(file.read_bytes())
        assert dict(console) == {str(report.sop_instance_uid): 1}, "no image goes back to the AE that sent it"


def test_a_late_image_is_forwarded_alone(
    start_node: Callable[..., NodeProcess], clean_head: Volume, tmp_path: Path
) -> None:
    port = free_port()
    quick = "[completeness]\ngrace_seconds = 0.5\nquiet_seconds = 2\n"
    node = start_node(destination("pacs", "COUNTER", port, 'send = ["images"]') + quick)
    _, files = slices(clean_head, tmp_path / "sent", 8)
    *early, late = files.values()
    with counting_archive(port) as archive:
        assert storescu(node.port, *early).returncode == 0
        wait_until(delivered(node, len(early)), 60, "the first images' delivery")
        assert storescu(node.port, late).returncode == 0
        wait_until(delivered(node, len(files)), 60, "the late image's delivery")
        assert dict(archive) == dict.fromkeys(files, 1)


def test_what_is_due_to_a_destination_that_is_named_no_more_is_seen_and_comes_back(
    start_node: Callable[..., NodeProcess], clean_head: Volume, tmp_path: Path
) -> None:
    port = free_port()
    quick = "[completeness]\ngrace_seconds = 0.5\n"
    named = destination("pacs", "COUNTER", port, 'send = ["images"]') + quick
    node = start_node(named)
    _, files = slices(clean_head, tmp_path / "sent", 9)
    assert storescu(node.port, *files.values()).returncode == 0
    wait_until(lambda: node.status()["deliveries"] == {"pending": len(files)}, 60, "the images' turn")
    assert node.stop() == 0
    node.extra = quick
    node.start()
    (letter,) = node.status()["dead_letters"]
    assert (letter["destination"], letter["kind"], letter["count"]) == ("pacs", "images", len(files))
    shown = qcnode("status", "--config", node.config).stdout
    assert f"Dead: {len(files)} × images" in shown
    assert node.stop() == 0
    node.extra = named
    with counting_archive(port) as archive:
        node.start()
        done = qcnode("retry", "--dead", "--config", node.config)
        assert (done.returncode, f"{len(files)} deliveries are due again" in done.stdout) == (0, True), done.stderr
        wait_until(delivered(node, len(files)), 60, "the revived deliveries")
        assert dict(archive) == dict.fromkeys(files, 1)
    assert node.status()["counters"]["dead"] == 0
