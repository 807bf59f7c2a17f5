"""Certificates for tests, made where they are needed."""

from __future__ import annotations

from pathlib import Path

import trustme

from kv_transfer.tls import TlsFiles

LOOPBACK = "127.0.0.1"


class Authority:
    """A CA that writes what it issues into a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.cert = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.cert)

    def issue(self, holder: str = LOOPBACK, *, expected: str | None = None) -> TlsFiles:
        """A certificate for `holder` and its key; its owner wants peers to be `expected`."""
        cert, key = self._folder / f"{holder}.pem", self._folder / f"{holder}.key"
        made = self._ca.issue_cert(holder)
        made.cert_chain_pems[0].write_to_path(cert)
        made.private_key_pem.write_to_path(key)
        return TlsFiles(cert, key, self.cert, expected)
