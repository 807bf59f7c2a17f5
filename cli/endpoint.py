"""Which cluster a command speaks to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cli.state import StateDir
from core.access import read_token

DEFAULT_PORT = 50051
TOKEN_VARIABLE = "ELASTICMM_TOKEN"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """HOST:PORT of a coordinator, and its cluster token where we have it."""

    address: str
    token: str | None


def find_endpoint(state: StateDir, address: str | None, token_file: Path | None = None) -> Endpoint:
    """The address given, else that of the cluster written down, else the default port here."""
    record = state.read_record()
    found = address or (record.address if record else f"127.0.0.1:{DEFAULT_PORT}")
    is_ours = record is not None and record.address == found
    return Endpoint(found, find_token(token_file, state if is_ours else None))


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
