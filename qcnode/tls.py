"""DICOM over TLS, as the listener accepts it and as a destination is spoken to.

The BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 Annex B): TLS 1.2 and 1.3, of TLS 1.2 only
the suites with forward secrecy and authenticated encryption that RFC 9325 Section 4.2 recommends.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from qcnode.errors import ConfigError

PORT = 2762  # dicom-tls, as IANA lists it
# TLS 1.2; those of TLS 1.3 are all fit.
_SUITES = ":".join(
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
    )
)


def server_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """For the listener; with `client_ca`, a peer must show a certificate that these authorities signed.

    All files are PEM, the key without a password. Raises ConfigError, which names the file, for one that does not fit.
    """
    context = _profiled(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    _identify(context, certificate, key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, client_ca)
    return context


def client_context(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None, *, check_host_name: bool = True
) -> ssl.SSLContext:
    """For a destination: its certificate must be signed by `ca` (without it: by those that the system trusts).

    Its certificate must name the host that is called, unless `check_host_name` is off: DICOM devices' often do not. Our
    own certificate is shown where there is one; without `key`, the key stands in the certificate's file.
    """
    context = _profiled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.check_hostname = check_host_name
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, ca)
    if certificate is not None:
        _identify(context, certificate, key)
    return context


def _profiled(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _identify(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # without it, OpenSSL would ask the terminal
    except OSError as error:  # ssl.SSLError among them
        raise ConfigError(
            f"The TLS certificate {certificate} and its key {key or certificate} cannot be used "
            f"({_why(error)}); give PEM files that belong together, the key without a password."
        ) from error


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(cafile=ca)
    except OSError as error:
        raise ConfigError(
            f"The TLS authorities in {ca} cannot be used ({_why(error)}); give a PEM file of their certificates."
        ) from error


def _why(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
    return str(reason).replace("_", " ").lower()
