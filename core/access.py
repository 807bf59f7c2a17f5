"""The cluster token: who may reach stage control, transfer, media store and admin."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

METADATA_KEY = "authorization"
_SCHEME = "bearer"


def new_token() -> str:
    return secrets.token_urlsafe(32)


def write_token(path: Path, token: str) -> None:
    """Creates the file readable by its owner only (mode 0600)."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        os.fchmod(fd, 0o600)
        file.write(token + "\n")


def read_token(path: Path) -> str:
    """Raises OSError, or ValueError if the file holds no token."""
    token = path.read_bytes().decode(errors="replace").strip()
    if not token.isascii() or len(token.split()) != 1:
        raise ValueError(f"{path}: holds no cluster token")
    return token


def token_metadata(token: str) -> tuple[tuple[str, str], ...]:
    """gRPC metadata that proves the token."""
    return ((METADATA_KEY, f"Bearer {token}"),)


def has_token(metadata: Iterable[tuple[str, str | bytes]], token: str) -> bool:
    """Whether invocation metadata proves the token."""
    return any(is_same_secret(each, token) for each in bearer_secrets(metadata))


def is_same_secret(given: str, secret: str) -> bool:
    """In constant time."""
    return hmac.compare_digest(given.encode(errors="surrogatepass"), secret.encode())


def bearer_secrets(metadata: Iterable[tuple[str, str | bytes]]) -> Iterator[str]:
    """What stands behind "Bearer ", in whatever case that is written."""
    for name, value in metadata:
        if name == METADATA_KEY and isinstance(value, str):
            scheme, _, secret = value.strip().partition(" ")
            if scheme.lower() == _SCHEME and secret.strip():
                yield secret.strip()


def why_refused(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Of proof that nothing here accepts: whether there was any; repeats nothing of it."""
    given = [pair for pair in metadata if pair[0] == METADATA_KEY]
    if not given:
        return "none was given"
    if not any(bearer_secrets(given)):
        return f"what was given is not of the form '{METADATA_KEY}: Bearer SECRET'"
    return "the one that was given is not known here"
