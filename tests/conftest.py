"""What several test files share: where the real data lies, and who trusts whom over TLS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Identity, authority, identity
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

from qcnode.delivery.requestor import Checkpoint


@pytest.fixture(scope="session", autouse=True)
def no_answer_is_lost_on_its_way() -> Iterator[None]:
    """Tests' own senders lose no answer of the node's to pynetdicom's other thread: see Checkpoint."""
    made = AE._create_socket

    def create_socket(ae: AE, association: Association, address: Any, tls: Any) -> AssociationSocket:
        association._reactor_checkpoint = Checkpoint(association)
        return made(ae, association, address, tls)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AE, "_create_socket", create_socket)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans, which is not part of the repository."""
    folder = Path(os.environ.get("QCNODE_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data folder is not here; set QCNODE_REAL_DATA to it")
    return folder


@pytest.fixture(scope="session")
def certificates_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the certificates lie."""
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="session")
def trusted(certificates_folder: Path) -> Identity:
    """The authority that both sides trust."""
    return authority(certificates_folder)


@pytest.fixture(scope="session")
def ours(certificates_folder: Path, trusted: Identity) -> Identity:
    """The node's certificate."""
    return identity(certificates_folder, "node", trusted)


@pytest.fixture(scope="session")
def theirs(certificates_folder: Path, trusted: Identity) -> Identity:
    """A scanner's or an archive's."""
    return identity(certificates_folder, "theirs", trusted)


@pytest.fixture(scope="session")
def stranger(certificates_folder: Path) -> Identity:
    """An authority that nobody trusts."""
    return authority(certificates_folder, "stranger")
