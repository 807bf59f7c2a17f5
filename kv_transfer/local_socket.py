"""Unix sockets beside the segments of a process: messages with bounds, to processes of the same user."""

from __future__ import annotations

import os
import socket
from pathlib import Path

MODE = 0o600
_BACKLOG = 64


def listen(path: Path) -> socket.socket:
    """A socket of mode 0600, to connect to by `path`; one that nobody hears any more is replaced.

    Messages arrive whole and in order, and either end learns at once of the other's death.
    Raises OSError.
    """
    if is_unheard(path):
        path.unlink(missing_ok=True)
    made = _new()
    try:
        os.fchmod(made.fileno(), MODE)  # before there is a name: bind gives it to the file
        made.bind(str(path))
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def connect(path: Path) -> socket.socket:
    """Raises OSError if nobody listens, or too many wait to be heard."""
    made = _new()
    try:
        made.connect(str(path))
    except BaseException:
        made.close()
        raise
    return made


def is_unheard(path: Path) -> bool:
    """Whether this is a socket that no process listens on (any more)."""
    if not path.is_socket():
        return False
    try:
        connect(path).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False  # gone, not ours to touch, or busy
    return False


def _new() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.setblocking(False)
    return made
