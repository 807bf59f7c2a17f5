"""What the two ends of a pair tell each other beside the payloads."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

_LENGTH = struct.Struct("<I")
_FRAME = struct.Struct("<7q")
FRAME_BYTES = _FRAME.size
MAX_GREETING_BYTES = 4096
MAX_REASON_BYTES = 1024


class Verb(IntEnum):
    PAYLOAD = 1  # to the receiver: size_bytes follow over the process group
    DRAIN = 2  # to the receiver: all of this lease was sent
    TAKEN = 3  # to the sender: size_bytes of this lease are in its blocks
    REFUSED = 4  # to the sender: the lease takes nothing; size_bytes of text follow that say why


@dataclass(frozen=True, slots=True)
class Frame:
    """A payload is [num_planes, num_tokens, token_bytes], the tokens of consecutive planes."""

    verb: Verb
    lease_id: int
    first_plane: int = 0
    num_planes: int = 0
    first_token: int = 0
    num_tokens: int = 0
    size_bytes: int = 0

    @property
    def planes(self) -> range:
        return range(self.first_plane, self.first_plane + self.num_planes)


def pack(frame: Frame) -> bytes:
    return _FRAME.pack(
        frame.verb,
        frame.lease_id,
        frame.first_plane,
        frame.num_planes,
        frame.first_token,
        frame.num_tokens,
        frame.size_bytes,
    )


def unpack(data: bytes) -> Frame:
    """Raises ValueError for a verb that is unknown."""
    verb, *numbers = _FRAME.unpack(data)
    return Frame(Verb(verb), *numbers)


def pack_greeting(values: Mapping[str, Any]) -> bytes:
    """A JSON object with its length before it."""
    body = json.dumps(dict(values)).encode()
    return _LENGTH.pack(len(body)) + body


def greeting_bytes(length: bytes) -> int:
    """How many bytes follow those first four; raises ValueError for too many."""
    (size,) = _LENGTH.unpack(length)
    if size > MAX_GREETING_BYTES:
        raise ValueError(f"a greeting of {size} bytes")
    return int(size)


def unpack_greeting(body: bytes) -> dict[str, Any]:
    """Raises ValueError if it is no JSON object."""
    values = json.loads(body)
    if not isinstance(values, dict):
        raise ValueError("a greeting is a JSON object")
    return values


def read_greeting(read: Callable[[int], bytes]) -> dict[str, Any]:
    """`read` returns exactly that many bytes. Raises ValueError."""
    return unpack_greeting(read(greeting_bytes(read(_LENGTH.size))))
