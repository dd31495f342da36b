"""Scanners: senders that try until everything was acknowledged, and that remember what was."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import numpy as np
from archives import data_set
from pydicom import Dataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE

from qcnode.artifacts import Plane
from qcnode.imaging import phantom
from qcnode.imaging.swoop import classic_series, swoop_series, to_bytes
from qcnode.imaging.volume import Volume

SCANNERS = 4
_COARSER = (3, 4, 4)  # every so many (slice, row, column): a round takes seconds, and the head stays one


@dataclass
class Shipment:
    """One series, and of which instances the node said that they are safe."""

    series_uid: str
    instances: tuple[Dataset, ...]
    cuts: tuple[int, ...] = ()  # where a new association begins, after a pause: what comes then may come late
    repeats: bool = False  # whether everything is sent once more at the end
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256 of each instance's data set as it was sent
    acknowledged: set[str] = field(default_factory=set)

    @property
    def is_complete(self) -> bool:
        """Whether each instance was answered Success."""
        return len(self.acknowledged) == len(self.instances)

    def parts(self) -> list[tuple[Dataset, ...]]:
        """What each association carries."""
        edges = [0, *self.cuts, len(self.instances)]
        return [self.instances[a:b] for a, b in pairwise(edges)]


@cache
def small_head() -> Volume:
    """A synthetic head on a coarse matrix: 12 slices of 37 by 30 pixels."""
    head = phantom.head(np.random.default_rng(5), Plane.AXIAL)
    affine = head.affine.copy()
    affine[:3, :3] *= _COARSER
    return Volume(np.ascontiguousarray(head.array[tuple(slice(None, None, n) for n in _COARSER)]), affine)


def shipment(generator: random.Random) -> Shipment:
    """A series of its own: mostly slices, some as one enhanced object, some cut in two, some sent twice."""
    draws = np.random.default_rng(generator.getrandbits(64))
    kind = generator.random()
    instances: tuple[Dataset, ...]
    if kind < 0.25:
        instances = (swoop_series(small_head(), patient_id="CHAOS", generator=draws),)
    else:
        instances = tuple(classic_series(small_head(), patient_id="CHAOS", generator=draws))
    return Shipment(
        series_uid=str(instances[0].SeriesInstanceUID),
        instances=instances,
        cuts=(generator.randint(4, len(instances) - 2),) if kind > 0.75 else (),
        repeats=generator.random() < 0.15,
        digests={str(one.SOPInstanceUID): hashlib.sha256(data_set(to_bytes(one))).hexdigest() for one in instances},
    )


class Scanner(threading.Thread):
    """Sends its shipments one after the other, over again where the node was away, until told to give up."""

    def __init__(
        self,
        name: str,
        port: int,
        shipments: Sequence[Shipment],
        generator: random.Random,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._port = port
        self._shipments = shipments
        self._pauses = [generator.uniform(0.0, 1.2) for _ in range(64)]
        self._note = note
        self.given_up = threading.Event()

    def run(self) -> None:
        """Send everything."""
        for one in self._shipments:
            for number, part in enumerate(one.parts()):
                if number:
                    self.given_up.wait(self._pauses.pop())
                self._send_patiently(one, part)
            if one.repeats:
                self._send(one, one.instances)
            self._note(f"{self.name} sent {one.series_uid} acknowledged={len(one.acknowledged)}/{len(one.instances)}")
            self.given_up.wait(self._pauses.pop() / 2)

    def _send_patiently(self, one: Shipment, part: Sequence[Dataset]) -> None:
        while not self.given_up.is_set():
            self._send(one, part)
            part = [instance for instance in part if str(instance.SOPInstanceUID) not in one.acknowledged]
            if not part:
                return
            self.given_up.wait(0.2)  # the node is away; a console tries again

    def _send(self, one: Shipment, instances: Sequence[Dataset]) -> None:
        store(self._port, instances, one.acknowledged, calling=self.name)


def store(port: int, instances: Sequence[Dataset], acknowledged: set[str], calling: str = "SWOOP1") -> list[int]:
    """One association; adds what was answered Success. The other statuses, until the association was lost."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
    entity.connection_timeout = 5
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    entity.add_requested_context(EnhancedMRImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title="QCNODE")
    refused = []
    for instance in instances:
        if not association.is_established:
            return refused
        try:
            status = association.send_c_store(instance).get("Status")
        except RuntimeError:  # the association ended since we looked
            return refused
        if status == 0x0000:
            acknowledged.add(str(instance.SOPInstanceUID))
        elif status is not None:
            refused.append(int(status))
    if association.is_established:
        association.release()
    return refused
