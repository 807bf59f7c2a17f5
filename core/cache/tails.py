"""Blocks that are begun and not full: who shares their first tokens copies them into a block of its own.

block of one sequence    a b c d e . . .      tail: the tokens a b c d e after a whole block
of another, later        a b c x y z . .      copies a b c, computes from x on
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

from core.cache.chain import MediaRange
from core.cache.encoding import encoded
from core.cache.entry import Entry, Unit
from core.cache.keys import DIGEST_BYTES

_Place = tuple[Entry, Unit]  # the block before, and the first token


def tail_units(
    tokens: Sequence[int], media: Sequence[MediaRange] = (), first_token: int = 0
) -> tuple[Unit, ...]:
    """Tokens that begin at `first_token` of the sequence, media of it in their places."""
    units: list[Unit] = list(tokens)
    end = first_token + len(tokens)
    for item in media:
        for token in range(max(item.first_token, first_token), min(item.end_token, end)):
            units[token - first_token] = item.identity, token - item.first_token
    return tuple(units)


def tail_key(parent: bytes, units: Sequence[Unit]) -> bytes:
    """Of a begun block after the block with the digest `parent`; never equal to that of a whole one."""
    content = encoded([parent, *units])
    return blake2b(content, digest_size=DIGEST_BYTES, person=b"elasticmm tail").digest()


class TailIndex:
    """By the block before them and their first token."""

    def __init__(self) -> None:
        self._tails: dict[_Place, list[Entry]] = {}

    def __iter__(self) -> Iterator[Entry]:
        return (entry for tails in self._tails.values() for entry in tails)

    def add(self, entry: Entry) -> None:
        self._tails.setdefault(_place(entry), []).append(entry)

    def remove(self, entry: Entry) -> None:
        place = _place(entry)
        self._tails[place].remove(entry)
        if not self._tails[place]:
            del self._tails[place]

    def longest(self, parent: Entry, units: Sequence[Unit]) -> tuple[Entry, int] | None:
        """The tail after `parent` that begins most like `units`, and how many tokens they share."""
        tails = self._tails.get((parent, units[0]), ()) if units else ()
        shared = [(entry, _shared(entry.tail, units)) for entry in tails]
        return max(shared, key=lambda each: each[1], default=None)

    def beginnings(self, entry: Entry) -> list[Entry]:
        """Other tails that hold nothing but the beginning of this one."""
        tails = self._tails.get(_place(entry), ())
        return [each for each in tails if each is not entry and each.tail == entry.tail[: len(each.tail)]]


def _place(entry: Entry) -> _Place:
    assert entry.parent is not None
    return entry.parent, entry.tail[0]


def _shared(some: Sequence[Unit], others: Sequence[Unit]) -> int:
    number = 0
    for mine, yours in zip(some, others, strict=False):
        if mine != yours:
            break
        number += 1
    return number
