"""Ports for listeners that are named theirs before they open it."""

from __future__ import annotations

import itertools
import os
import socket

# Below those that the system gives to whoever asks for any: between the choice and its use nobody takes it.
_FIRST, _COUNT = 20000, 12000
_tried = itertools.count(os.getpid() * 101)  # each process of the suite tries others


def free_port() -> int:
    """Of loopback; another one at every call. Raises OSError where all are taken."""
    for number in itertools.islice(_tried, _COUNT):
        port = _FIRST + number % _COUNT
        with socket.socket() as taken:
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
