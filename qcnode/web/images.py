"""The images of a series as a volume, for the viewer and to keep: made from the spool when somebody asks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from fastapi import FastAPI, HTTPException, Response

from qcnode.errors import QcnodeError
from qcnode.intake.spool import instance_path
from qcnode.ledger.models import Series
from qcnode.ledger.store import Store
from qcnode.web.aside import Aside, nifti_of
from qcnode.web.auth import Seen
from qcnode.web.forms import UID

MOST_BYTES = 256 * 2**20  # of a series' instances: a volume is a head, and all of it is held in memory
KEPT = 4  # volumes: whoever looks at a verdict together looks at the same series


class Volumes:
    """Volumes by the instances they are made of; the latest few are kept, so that the second viewer need not wait."""

    def __init__(self, folder: Path, aside: Aside) -> None:
        self._folder, self._aside = folder, aside
        self._kept: OrderedDict[tuple[str, ...], bytes] = OrderedDict()
        self._turn = threading.Lock()

    def nifti(self, series: Series) -> bytes:
        """The series as gzipped NIfTI; PermanentError says why there is none."""
        uid = series.series_instance_uid
        key = (uid, *in_spool(series))
        with self._turn:
            if key not in self._kept:
                instances = [instance_path(self._folder, uid, sop).read_bytes() for sop in key[1:]]
                self._kept[key] = self._aside.call(nifti_of, instances)
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]


def in_spool(series: Series) -> tuple[str, ...]:
    """The SOP Instance UIDs of the instances that retention has not taken."""
    return tuple(one.sop_instance_uid for one in series.instances if one.removed_at is None)


def add_images(app: FastAPI, store: Store, folder: Path, aside: Aside) -> None:
    """The address of a series' volume."""
    volumes = Volumes(folder, aside)

    @app.get("/series/{uid}/volume.nii.gz")
    def volume(uid: UID, _: Seen) -> Response:
        """The volume, without anything of the DICOM headers."""
        series = store.overview.detail(uid)
        if series is None or not in_spool(series):
            raise HTTPException(404, "The images of this series are not in the spool.")
        if sum(one.size for one in series.instances if one.removed_at is None) > MOST_BYTES:
            raise HTTPException(413, "The series is too large to be made one volume here; open it in the archive.")
        try:
            data = volumes.nifti(series)
        except QcnodeError as error:
            raise HTTPException(404, str(error)) from error
        except FileNotFoundError as error:  # retention took them this instant
            raise HTTPException(404, "The images of this series are not in the spool.") from error
        named = {"Content-Disposition": 'attachment; filename="volume.nii.gz"'}
        return Response(data, media_type="application/gzip", headers=named)
