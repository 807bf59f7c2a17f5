"""Which cluster a command speaks to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cli.state import StateDir
from core.access import read_token
from elasticmm_client.tls import Tls

DEFAULT_PORT = 50051
TOKEN_VARIABLE = "ELASTICMM_TOKEN"
KEY_VARIABLE = "ELASTICMM_API_KEY"
TLS_VARIABLES = {name: f"ELASTICMM_TLS_{name.upper()}" for name in ("ca", "cert", "key", "name")}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """HOST:PORT of a coordinator, and what we have to prove ourselves and to reach it with."""

    address: str
    token: str | None = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    tls: Tls | None = None  # None: plain text
    http: str = ""  # URL of its HTTP door, where known
    model: Path | None = None  # folder of what it serves, where known


def find_endpoint(state: StateDir, address: str | None, token_file: Path | None = None) -> Endpoint:
    """The address given, else that of the cluster written down, else the default port here.

    Raises ValueError naming a file that cannot be read.
    """
    if address is not None:
        check_address("address", address)
    record = state.read_record()
    found = address or (record.address if record else f"127.0.0.1:{DEFAULT_PORT}")
    ours = record if record is not None and record.address == found else None
    return Endpoint(
        found,
        find_token(token_file, None if ours is None else state),
        os.environ.get(KEY_VARIABLE) or None,
        find_tls(None if ours is None else ours.tls),
        http="" if ours is None else ours.http,
        model=None if ours is None else Path(ours.model),
    )


def check_address(option: str, address: str) -> None:
    """HOST:PORT, [IPv6]:PORT or a name of gRPC's with a scheme, such as unix:PATH. Raises ValueError."""
    host, _, port = address.rpartition(":")
    if address.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
        return
    if not host or "/" in host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= 65535:
        raise ValueError(f"{option}: {address!r} is not HOST:PORT (of the coordinator's gRPC port)")


def find_tls(written: Mapping[str, str] | None) -> Tls | None:
    """From the environment, else as written down; None: plain text. Raises ValueError naming a bad file."""
    given = {name: os.environ.get(variable) for name, variable in TLS_VARIABLES.items()}
    chosen = given if any(given.values()) else dict(written or {})
    if not any(chosen.values()):
        return None
    ca, cert, key = (Path(path) if (path := chosen.get(name)) else None for name in ("ca", "cert", "key"))
    return Tls(ca, cert, key, chosen.get("name") or None)


def find_token(token_file: Path | None, state: StateDir | None) -> str | None:
    """From the file given, else the environment, else the state folder.

    Raises ValueError if a given file cannot be read or holds no token.
    """
    if token_file is not None:
        try:
            return read_token(token_file)
        except OSError as error:
            raise ValueError(f"token-file: cannot read {token_file}: {error.strerror}") from error
    if os.environ.get(TOKEN_VARIABLE):
        return os.environ[TOKEN_VARIABLE]
    try:
        return read_token(state.token_path) if state else None
    except FileNotFoundError:
        return None
