"""C-STORE over TLS to DCMTK's storescp, with certificates made for the occasion."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import Identity, identity, needs_openssl
from delivery_peers import destination, document, free_port, needs_dcmtk, storescp
from pydicom import dcmread

from qcnode.delivery import dicom
from qcnode.delivery.outcome import ACCEPTED, Answer
from qcnode.errors import ConfigError, TransientError

pytestmark = [needs_openssl, needs_dcmtk]


def secured(theirs: Identity, trusted: Identity, *options: str) -> list[str]:
    """storescp's options; it asks for our certificate unless they say otherwise."""
    return ["+tls", str(theirs.key), str(theirs.certificate), "+cf", str(trusted.certificate), *options]


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_documents_arrive_over_tls_with_a_certificate_on_either_side(
    tmp_path: Path, trusted: Identity, theirs: Identity, ours: Identity, profile: str
) -> None:
    port = free_port()
    to = destination(port, tls=True, tls_ca=trusted.certificate, tls_certificate=ours.certificate, tls_key=ours.key)
    with storescp(tmp_path / "in", port, *secured(theirs, trusted, profile)):
        assert dicom.echo(to, "QCNODE") > 0
        assert dicom.send([document(n) for n in range(20)], to, "QCNODE") == [ACCEPTED] * 20
    assert {dcmread(path).SOPInstanceUID for path in (tmp_path / "in").iterdir()} == {
        f"2.25.{1000 + n}" for n in range(20)
    }


def test_without_a_certificate_of_ours_the_archive_takes_nothing(
    tmp_path: Path, trusted: Identity, theirs: Identity
) -> None:
    port = free_port()
    with storescp(tmp_path / "in", port, *secured(theirs, trusted)):
        (outcome,) = dicom.send([document(1)], destination(port, tls=True, tls_ca=trusted.certificate), "QCNODE")
    assert outcome.answer is Answer.UNREACHABLE
    assert not list((tmp_path / "in").iterdir())


def test_an_archive_that_we_do_not_trust_gets_nothing_and_the_error_says_why(
    tmp_path: Path, trusted: Identity, theirs: Identity, stranger: Identity
) -> None:
    port = free_port()
    with storescp(tmp_path / "in", port, *secured(theirs, trusted, "-ic")):
        with pytest.raises(TransientError, match=r"no TLS \(self-signed certificate"):
            dicom.echo(destination(port, tls=True, tls_ca=stranger.certificate), "QCNODE")
        elsewhere = identity(tmp_path, "elsewhere", trusted, "DNS:elsewhere.example")
    with storescp(tmp_path / "in", port, *secured(elsewhere, trusted, "-ic")):
        with pytest.raises(TransientError, match="mismatch"):
            dicom.echo(destination(port, tls=True, tls_ca=trusted.certificate), "QCNODE")
        lenient = destination(port, tls=True, tls_ca=trusted.certificate, tls_check_host_name=False)
        assert dicom.echo(lenient, "QCNODE") > 0


def test_tls_to_an_archive_without_it_is_unreachable(tmp_path: Path, trusted: Identity) -> None:
    port = free_port()
    with storescp(tmp_path / "in", port):
        (outcome,) = dicom.send([document(1)], destination(port, tls=True, tls_ca=trusted.certificate), "QCNODE")
    assert outcome.answer is Answer.UNREACHABLE


def test_a_file_that_is_gone_puts_documents_off_and_is_named_to_who_checks(tmp_path: Path) -> None:
    to = destination(free_port(), tls=True, tls_ca=tmp_path / "none.pem")
    (outcome,) = dicom.send([document(1)], to, "QCNODE")
    assert outcome.answer is Answer.UNREACHABLE
    assert "none.pem" in outcome.error
    with pytest.raises(ConfigError, match=r"none\.pem"):
        dicom.echo(to, "QCNODE")
