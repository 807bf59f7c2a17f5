"""One byte string per value, and no two values with the same: what may go into a hash."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Plain = None | bool | int | float | str | bytes | Sequence["Plain"] | Mapping[str, "Plain"]


def encoded(value: Plain) -> bytes:
    """A type tag, the length, the content. Mappings in order of their keys, so that order does not count.

    1, 1.0, True and "1" differ. Raises TypeError for what is no plain value.
    """
    tag, content = _parts(value)
    return tag + struct.pack("<Q", len(content)) + content


def _parts(value: Plain) -> tuple[bytes, bytes]:
    for kind, tag, content in _KINDS:
        if isinstance(value, kind):
            return tag, content(value)
    raise TypeError(f"{type(value).__name__} is no plain value")


def _mapping(value: Mapping[str, Plain]) -> bytes:
    return b"".join(encoded(name) + encoded(value[name]) for name in sorted(value))


def _sequence(value: Sequence[Plain]) -> bytes:
    return b"".join(map(encoded, value))


# In this order: a bool is an int, text and bytes are sequences.
_KINDS: tuple[tuple[type, bytes, Callable[[Any], bytes]], ...] = (
    (type(None), b"n", lambda _: b""),
    (bool, b"b", lambda value: b"1" if value else b"0"),
    (int, b"i", lambda value: str(value).encode()),
    (float, b"f", struct.Struct("<d").pack),
    (str, b"s", str.encode),
    (bytes, b"x", bytes),
    (Mapping, b"m", _mapping),
    (Sequence, b"l", _sequence),
)
