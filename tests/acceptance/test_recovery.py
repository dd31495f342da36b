"""Nothing acknowledged is lost and nothing is reported twice, whichever process dies; and an orderly end is one."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from archives import counting_archive, data_set, destination
from peers import NodeProcess, free_port, qcnode, storescu, wait_until
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE

from qcnode.imaging.swoop import classic_series, swoop_series, to_bytes
from qcnode.imaging.volume import Volume
from qcnode.states import State

PATIENT_NAME, PATIENT_ID = "QUINTARELLI^ZOE", "MRN-77120934"
SOON = "[completeness]\ngrace_seconds = 0.5\nquiet_seconds = 3\n"


def swoop(head: Volume, seed: int, folder: Path) -> tuple[str, Path]:
    """A Swoop object: its series, and its file."""
    generator = np.random.default_rng(seed)
    dataset = swoop_series(head, patient_id=PATIENT_ID, patient_name=PATIENT_NAME, generator=generator)
    file = folder / f"{seed}.dcm"
    file.write_bytes(to_bytes(dataset))
    return str(dataset.SeriesInstanceUID), file


def slices(head: Volume, seed: int) -> list[Dataset]:
    generator = np.random.default_rng(seed)
    return classic_series(head, patient_id=PATIENT_ID, patient_name=PATIENT_NAME, generator=generator)


def send_until_cut_off(port: int, instances: Sequence[Dataset], acknowledged: list[Dataset]) -> None:
    """Send one after the other over one association, and note each that was answered with Success."""
    entity = AE("SWOOP1")
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="QCNODE")
    assert association.is_established
    with association.dul.socket.socket:  # pynetdicom leaves it open when the peer resets it
        for instance in instances:
            if not association.is_established:
                return
            try:
                answer = association.send_c_store(instance)
            except RuntimeError:  # the association ended since we looked
                return
            if "Status" not in answer:  # cut off: another request would wait for an answer until it times out
                return
            if answer.Status == 0x0000:
                acknowledged.append(instance)
        association.release()


def children(pid: int) -> list[int]:
    """The processes that this one started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it ended since we looked
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def maps_torch(pid: int) -> bool:
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def grading_process(node: NodeProcess) -> int:
    """The process that has torch, once it has."""
    assert node.process is not None
    pid = node.process.pid
    found = wait_until(lambda: [child for child in children(pid) if maps_torch(child)], 60, "the grading process")
    return int(found[0])


def test_a_kill_while_receiving_loses_nothing_that_was_acknowledged(
    start_node: Callable[..., NodeProcess], clean_head: Volume, tmp_path: Path
) -> None:
    port = free_port()
    series = [slices(clean_head, seed) for seed in (11, 12)]
    everything = [instance for one in series for instance in one]
    uids = [str(one[0].SeriesInstanceUID) for one in series]
    acknowledged: list[Dataset] = []
    with counting_archive(port) as archive:
        node = start_node(SOON + destination("pacs", "COUNTER", port))
        sender = threading.Thread(target=send_until_cut_off, args=(node.port, everything, acknowledged))
        sender.start()
        wait_until(lambda: len(acknowledged) > len(series[0]) + 5, 60, "the second series on its way")
        node.kill()
        sender.join(60)
        assert len(acknowledged) < len(everything), "the kill came too late to say anything"

        node.start()
        known = {i.sop_instance_uid: i.sha256 for uid in uids if (s := node.series(uid)) for i in s.instances}
        for instance in acknowledged:
            sop = str(instance.SOPInstanceUID)
            assert sop in known, "what was acknowledged is in the ledger"
            file = node.state / "spool" / str(instance.SeriesInstanceUID) / f"{sop}.dcm"
            sent = data_set(to_bytes(instance))
            assert data_set(file.read_bytes()) == sent, "and in the spool, byte for byte"
            assert known[sop] == hashlib.sha256(sent).hexdigest()
        assert not list((node.state / "spool" / "tmp").iterdir())

        folder = tmp_path / "again"
        folder.mkdir()
        for number, instance in enumerate(everything):
            (folder / f"{number}.dcm").write_bytes(to_bytes(instance))
        assert storescu(node.port, "+sd", folder).returncode == 0
        documents = []
        for uid, one in zip(uids, series, strict=True):
            wait_until(lambda u=uid, o=one: (s := node.series(u)) and s.instance_count == len(o), 30, "the rest")
            found = node.finished(uid)
            assert (found.state, found.instance_count) == (State.ASSESSED, len(one))
            documents += [d.sop_instance_uid for a in found.assessments for d in a.documents if d.sop_instance_uid]
        assert archive == dict.fromkeys(documents, 1), "each document of each revision, once"
    assert_quiet(node)


def test_a_kill_while_assessing_ends_in_one_report(
    start_node: Callable[..., NodeProcess], clean_head: Volume, tmp_path: Path
) -> None:
    port = free_port()
    uid, file = swoop(clean_head, 13, tmp_path)
    with counting_archive(port) as archive:
        node = start_node(destination("pacs", "COUNTER", port))
        assert storescu(node.port, file).returncode == 0
        wait_until(lambda: (s := node.series(uid)) and s.state is State.ASSESSING, 30, "its assessment")
        node.kill()
        interrupted = node.series(uid)
        assert interrupted is not None
        assert interrupted.state is State.ASSESSING
        assert not archive
        node.start()
        found = node.finished(uid)
        assert (found.state, found.revision, len(found.assessments)) == (State.ASSESSED, 1, 1)
        documents = [document.sop_instance_uid for document in found.assessments[0].documents]
        assert archive == dict.fromkeys(filter(None, documents), 1)
        assert sum(document.kind == "report" for document in found.assessments[0].documents) == 1
    assert_quiet(node)


def test_the_grading_process_is_apart_replaced_when_it_dies_and_never_left_behind(
    start_node: Callable[..., NodeProcess], clean_head: Volume, tmp_path: Path
) -> None:
    node = start_node()
    assert node.process is not None
    grading = grading_process(node)
    assert not maps_torch(node.process.pid), "receiving never waits for torch"

    os.kill(grading, signal.SIGKILL)
    uid, file = swoop(clean_head, 14, tmp_path)
    assert storescu(node.port, file).returncode == 0
    found = node.finished(uid)
    assert found.state is State.ASSESSED
    replacement = grading_process(node)
    assert replacement != grading

    node.process.kill()  # the node alone, as the kernel's out-of-memory killer would
    node.process.wait()
    wait_until(lambda: not Path(f"/proc/{replacement}").exists() or is_zombie(replacement), 15, "its end")


def test_a_node_ends_in_good_order_in_the_middle_of_its_work(
    start_node: Callable[..., NodeProcess], clean_head: Volume, tmp_path: Path
) -> None:
    node = start_node()
    uid, file = swoop(clean_head, 15, tmp_path)
    assert storescu(node.port, file).returncode == 0
    wait_until(lambda: (s := node.series(uid)) and s.state is State.ASSESSING, 30, "its assessment")
    grading = children(node.process.pid) if node.process else []
    assert node.stop(seconds=15) == 0
    assert "node_stopped" in node.log
    gone = lambda: all(not Path(f"/proc/{pid}").exists() or is_zombie(pid) for pid in grading)  # noqa: E731
    wait_until(gone, 15, "the end of its processes")  # multiprocessing's own tracker notices a moment later
    unfinished = node.series(uid)
    assert unfinished is not None
    assert (unfinished.state, unfinished.attempts) == (State.ASSESSING, 1)
    assert_quiet(node)
    node.start()
    assert node.finished(uid).state is State.ASSESSED
    assert_quiet(node)


def test_a_second_node_on_the_folder_or_the_port_refuses_in_one_sentence(
    start_node: Callable[..., NodeProcess], tmp_path: Path
) -> None:
    node = start_node()
    refused = qcnode("serve", "--config", node.config)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.strip().splitlines()[-1].startswith(f"Another node works in {node.state}; stop it")
    for section, port, remedy in (("dicom", node.port, "[dicom] host or port"), ("web", node.web_port, "[web] port")):
        ports = {"dicom": free_port(), "web": free_port()} | {section: port}
        config = tmp_path / f"{section}.toml"
        config.write_text(
            f'[dicom]\nhost = "127.0.0.1"\nport = {ports["dicom"]}\n[web]\nport = {ports["web"]}\n'
            f'[state]\nfolder = "{tmp_path / section}"\n'
        )
        refused = qcnode("serve", "--config", config)
        assert refused.returncode == 2, refused.stderr
        last = refused.stderr.strip().splitlines()[-1]
        assert f"127.0.0.1:{port}" in last
        assert last.endswith(f"change {remedy}.")
        assert "Traceback" not in refused.stderr
    assert node.stop(seconds=15) == 0


def is_zombie(pid: int) -> bool:
    """Whether it ended and nobody asked how: what init does in time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def assert_quiet(node: NodeProcess) -> None:
    """No traceback and no patient in the log."""
    assert "Traceback" not in node.log
    for secret in (PATIENT_ID, PATIENT_NAME.split("^")[0], PATIENT_NAME.split("^")[0].title()):
        assert secret not in node.log
