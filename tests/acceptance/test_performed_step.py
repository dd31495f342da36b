"""A modality that speaks MPPS: its word holds a series to what was scanned, before, among and after the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from peers import NodeProcess, nodes, storescu, wait_until
from performed_steps import associated, begin, change, ending, perform, release, rest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, Association
from pynetdicom.sop_class import ModalityPerformedProcedureStep
from senders import files, with_event

from qcnode.imaging.swoop import classic_series
from qcnode.imaging.volume import Volume
from qcnode.states import State
from qcnode.verdict import Decision

NEVER = "[completeness]\ngrace_seconds = 600\nquiet_seconds = 600\n"


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that waits for minutes unless the scanner says that there is no more."""
    with nodes(tmp_path_factory.mktemp("patient")) as start:
        yield start(NEVER)


def slices(head: Volume, seed: int) -> list[Dataset]:
    return classic_series(head, patient_id=f"MPPS-{seed}", generator=np.random.default_rng(seed))


def uids(instances: Sequence[Dataset]) -> tuple[str, list[str]]:
    return str(instances[0].SeriesInstanceUID), [str(one.SOPInstanceUID) for one in instances]


def scanner(port: int) -> Association:
    """One association for images and steps."""
    entity = AE(ae_title="SWOOP1")
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    entity.add_requested_context(ModalityPerformedProcedureStep)
    association = entity.associate("127.0.0.1", port, ae_title="QCNODE")
    assert len(association.accepted_contexts) == 2
    return association


def store(association: Association, instances: Sequence[Dataset]) -> None:
    for one in instances:
        rest()
        assert association.send_c_store(one).Status == 0x0000


def test_a_stack_cut_short_at_both_ends_is_held_to_what_the_scanner_announced(
    node: NodeProcess, clean_head: Volume, tmp_path: Path
) -> None:
    whole = slices(clean_head, 41)
    uid, sops = uids(whole)
    first, *middle, last = files(tmp_path, *whole)

    unannounced = slices(clean_head, 42)[1:-1]
    (tmp_path / "other").mkdir()
    assert storescu(node.port, *files(tmp_path / "other", *unannounced)).returncode == 0
    fooled = node.finished(uids(unannounced)[0])
    assert fooled.complete_why == "the association was released and the stack has no gap"
    assert fooled.latest is not None
    assert not any("announced" in reason for reason in fooled.latest.reasons), "geometry cannot tell"

    perform(node.port, {uid: sops}, step="1.2.41")
    assert storescu(node.port, *middle).returncode == 0
    short = node.finished(uid)
    assert short.complete_why == f"2 of {len(sops)} that the scanner announced did not come within the quiet time"
    assert short.latest is not None
    assert short.latest.decision is not Decision.ACCEPT
    told = f"2 of {len(sops)} instances that the scanner announced did not arrive. Send the series again."
    assert short.latest.reasons[-1] == told
    assert told in node.get(f"/series/{uid}").decode()

    assert storescu(node.port, first, last).returncode == 0
    mended = node.finished(uid, revision=2)
    assert mended.complete_why == f"all {len(sops)} that the scanner announced are here"
    assert mended.latest is not None
    assert told not in mended.latest.reasons


def test_the_word_among_the_images_ends_the_series_with_the_last_of_them(
    patient: NodeProcess, clean_head: Volume
) -> None:
    whole = slices(clean_head, 43)
    uid, sops = uids(whole)
    association = scanner(patient.port)
    assert begin(association, "1.2.43").Status == 0x0000
    store(association, whole[:5])
    assert change(association, ending({uid: sops}), "1.2.43").Status == 0x0000
    store(association, whole[5:-1])
    assert patient.series(uid) is not None
    store(association, whole[-1:])
    series = patient.finished(uid, seconds=60)
    assert association.is_established, "nothing but the scanner's word said that this was all"
    release(association)
    assert (series.state, series.revision, series.instance_count) == (State.ASSESSED, 1, len(sops))
    assert series.complete_why == f"all {len(sops)} that the scanner announced are here"


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_the_word_after_the_images_ends_the_series_at_once(
    patient: NodeProcess, clean_head: Volume, tmp_path: Path, status: str
) -> None:
    whole = slices(clean_head, 44 + len(status))
    uid, sops = uids(whole)
    assert storescu(patient.port, *files(tmp_path, *whole)).returncode == 0
    wait_until(lambda: (s := patient.series(uid)) and s.instance_count == len(sops), 30, "its record")
    assert patient.series(uid).state is State.RECEIVING  # type: ignore[union-attr]
    perform(patient.port, {uid: sops}, step=f"1.2.44.{len(status)}", status=status)
    series = patient.finished(uid, seconds=60)
    assert (series.state, series.revision) == (State.ASSESSED, 1)


def test_a_verdict_from_before_the_word_is_superseded_where_the_word_names_more(
    node: NodeProcess, clean_head: Volume, tmp_path: Path
) -> None:
    whole = slices(clean_head, 45)
    uid, sops = uids(whole)
    assert storescu(node.port, *files(tmp_path, *whole[:-2])).returncode == 0
    early = node.finished(uid)
    assert early.complete_why == "the association was released and the stack has no gap"
    perform(node.port, {uid: sops}, step="1.2.45")
    late = node.finished(uid, revision=2)
    new, old = late.assessments
    assert (new.revision, old.revision) == (2, 1)
    assert new.predecessor_uid is not None
    assert new.reasons[-1].startswith(f"2 of {len(sops)} instances that the scanner announced")
    assert not any("announced" in reason for reason in old.reasons)


def test_a_step_outlives_the_death_of_the_node(
    start_node: Callable[..., NodeProcess], clean_head: Volume, tmp_path: Path
) -> None:
    node = start_node(NEVER)
    begun, ended = slices(clean_head, 46), slices(clean_head, 47)
    association = associated(node.port)
    for step, whole in (("1.2.46", begun), ("1.2.47", ended)):
        assert begin(association, step).Status == 0x0000
        (tmp_path / step).mkdir()
        assert storescu(node.port, *files(tmp_path / step, *whole[1:])).returncode == 0
    assert change(association, ending(dict([uids(ended)])), "1.2.47").Status == 0x0000
    release(association)
    node.kill()
    node.start()
    association = associated(node.port)
    assert begin(association, "1.2.46").Status == 0x0111, "it is known"
    assert change(association, ending({}), "1.2.47").ErrorID == 0xA710, "and so is its end"
    assert change(association, ending(dict([uids(begun)])), "1.2.46").Status == 0x0000
    release(association)
    for step, whole in (("1.2.46", begun), ("1.2.47", ended)):
        uid, sops = uids(whole)
        with_event(node, uid, "announced")
        (tmp_path / f"{step}-rest").mkdir()
        assert storescu(node.port, *files(tmp_path / f"{step}-rest", whole[0])).returncode == 0
        series = node.finished(uid)
        assert (series.revision, series.instance_count) == (1, len(sops))
        assert series.complete_why == f"all {len(sops)} that the scanner announced are here"
    assert "Traceback" not in node.log
    assert "QUINTARELLI" not in node.log
