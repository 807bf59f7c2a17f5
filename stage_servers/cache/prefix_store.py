"""The instance's KV cache as pulls and pushes of prefixes see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from core.sequence import SequenceSpec
from stage_servers.cache.prefix import Prefix


@dataclass(frozen=True, slots=True)
class WantedPrefix:
    """Whole blocks of a sequence that this instance lacks, all of them before its last token."""

    spec: SequenceSpec
    keys: tuple[bytes, ...]  # in order, of the chain up to each block's end
    first_token: int  # of the first of these blocks; those before it are here
    compute_s: float | None = None  # that computing them is predicted to take; None: that is not known
    prefix: Prefix | None = None  # the cache's own record of the sequence, if it has use for it


class PinnedPrefix(Protocol):
    """Blocks that keep their content until they are unpinned."""

    @property
    def blocks(self) -> Sequence[int]:
        """In the pool, in order of tokens, from the first one of the sequence on."""

    @property
    def num_tokens(self) -> int: ...


Pinned = TypeVar("Pinned", bound=PinnedPrefix)


class PrefixStore(Protocol[Pinned]):
    """Called in the engine thread, between two steps."""

    def wanted(self, spec: SequenceSpec, num_tokens: int) -> WantedPrefix | None:
        """What is not here of the sequence's first `num_tokens`; None: nothing to be asked for."""

    def adopt(self, wanted: WantedPrefix, blocks: Sequence[int]) -> None:
        """Takes over blocks with the content of the first of the wanted keys. Those that cannot be kept, or
        came to be here meanwhile, go back to the pool.
        """

    def pin(self, keys: Sequence[bytes]) -> Pinned | None:
        """Keeps in place the longest prefix that ends with one of the leading keys, which are at ends of
        blocks of this instance; None: nothing of it is here.
        """

    def unpin(self, pinned: Pinned) -> None:
        """The blocks may go."""
