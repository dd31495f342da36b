"""The profile: TLS 1.2 and 1.3, strong suites alone, and a sentence for a file that does not fit."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
from certificates import Identity, needs_openssl

from qcnode.errors import ConfigError
from qcnode.tls import client_context, server_context

pytestmark = needs_openssl


def shaken(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> tuple[str, str]:
    """Version and suite that the two agree on; raises what the client's handshake, or its first read, raises."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as secured:
                secured.sendall(b".")
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=host) as secured:
            assert secured.recv(1) == b"."
            suite = secured.cipher()
            assert suite is not None
            return str(secured.version()), suite[0]
    finally:
        ours.close()
        thread.join()


def test_two_of_the_profile_speak_tls_1_3(trusted: Identity, theirs: Identity) -> None:
    server = server_context(theirs.certificate, theirs.key)
    assert shaken(server, client_context(trusted.certificate))[0] == "TLSv1.3"


def test_tls_1_2_has_forward_secrecy_and_authenticated_encryption(trusted: Identity, theirs: Identity) -> None:
    client = client_context(trusted.certificate)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    version, suite = shaken(server_context(theirs.certificate, theirs.key), client)
    assert version == "TLSv1.2"
    assert suite.startswith("ECDHE-")
    assert "-GCM-" in suite


@pytest.mark.parametrize("side", ["server", "client"])
def test_nothing_older_than_tls_1_2_and_no_weak_suite_is_offered(
    side: str, trusted: Identity, theirs: Identity
) -> None:
    server = server_context(theirs.certificate, theirs.key)
    context = server if side == "server" else client_context(trusted.certificate)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    for suite in context.get_ciphers():
        assert suite["strength_bits"] >= 128
        assert suite["aead"]
        assert suite["protocol"] == "TLSv1.3" or suite["kea"] == "kx-ecdhe"


def test_a_server_of_another_authority_is_not_trusted(theirs: Identity, stranger: Identity) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(server_context(theirs.certificate, theirs.key), client_context(stranger.certificate))


def test_a_certificate_for_another_host_is_refused_unless_names_are_not_checked(
    trusted: Identity, theirs: Identity
) -> None:
    server = server_context(theirs.certificate, theirs.key)
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(server, client_context(trusted.certificate), "elsewhere.example")
    lenient = client_context(trusted.certificate, check_host_name=False)
    assert shaken(server, lenient, "elsewhere.example")[0] == "TLSv1.3"


def test_a_server_that_asks_for_a_certificate_turns_away_who_has_none(
    trusted: Identity, theirs: Identity, ours: Identity
) -> None:
    server = server_context(theirs.certificate, theirs.key, trusted.certificate)
    assert shaken(server, client_context(trusted.certificate, ours.certificate, ours.key))
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        shaken(server, client_context(trusted.certificate))


def test_files_that_do_not_fit_are_a_sentence(tmp_path: Path, theirs: Identity, ours: Identity) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used \(no such file"):
        client_context(tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="belong together"):
        server_context(theirs.certificate, ours.key)
    locked = tmp_path / "locked.key"
    locked.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(ConfigError, match="without a password"):
        server_context(theirs.certificate, locked)
