"""Whether the C++ parts can be made here: without them CPU steps and copies are slower, not wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from cli.checkup.finding import Finding, fine, note
from core.compiled import NativeError, ensure_built


def check_compiler() -> Iterator[Finding]:
    """Compiles what is not compiled yet, which takes seconds."""
    from kv_transfer.native import copies
    from stage_servers.engine.native import build

    yield check_native("native steps", build.ensure_built)
    yield check_native("native copies", partial(ensure_built, copies.FOLDER, copies.FLAGS))


def check_native(subject: str, ensure: Callable[[], Path]) -> Finding:
    try:
        return fine(subject, f"compiled: {ensure()}")
    except NativeError as error:
        return note(
            subject,
            f"cannot be had: {error}; slower ways are taken",
            "install a C++ compiler (Debian: apt install g++), or name one with CXX",
        )
