"""A certificate for the transfers that go through TLS, made where it is needed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from kv_transfer.tls import TlsFiles

_HOLDER = "127.0.0.1"


def can_issue() -> bool:
    return importlib.util.find_spec("trustme") is not None


def issue(folder: Path) -> TlsFiles:
    """One that both ends prove themselves with, written into `folder`."""
    import trustme

    authority = trustme.CA()
    made = authority.issue_cert(_HOLDER)
    cert, key, ca = (folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
    made.cert_chain_pems[0].write_to_path(cert)
    made.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    return TlsFiles(cert, key, ca)
