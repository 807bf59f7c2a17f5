"""TLS between stage servers: the files, and what gRPC says where it fails."""

from __future__ import annotations

from core.tls import Dialer, TlsFiles, add_port

__all__ = ["Dialer", "TlsFiles", "add_port", "connection_problem"]

_BROKEN_OFF = "one end speaks TLS and the other does not, or this end's certificate was refused"
# What gRPC says of connections that came to nothing, and whether only TLS can be the cause.
_HINTS = (
    ("WRONG_VERSION_NUMBER", "the peer does not speak TLS", True),
    ("Hostname Verification", "the peer's certificate is for another name (see tls_name)", True),
    ("CERTIFICATE_VERIFY_FAILED", "the peer's certificate does not hold before tls_ca", True),
    ("Socket closed", _BROKEN_OFF, False),
    ("reset by peer", _BROKEN_OFF, False),
    ("Broken pipe", _BROKEN_OFF, False),
)


def connection_problem(details: str) -> tuple[str, bool]:
    """Why TLS let a call fail that gRPC describes so, empty if it did not; and whether that is sure."""
    for words, hint, is_sure in _HINTS:
        if words in details:
            return hint, is_sure
    return "", False
