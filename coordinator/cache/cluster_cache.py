"""What the caches of the attached instances hold, as far as they have said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coordinator.cache.index import ClusterIndex
from coordinator.policy.prefixes import Prefixes
from coordinator.stage_messages import CacheReport, InstanceInfo
from core.cache.chain import GRANULE_TOKENS, block_keys

_ROOM = 1.5  # times what the pools hold, so that the table is not laid out anew at every attachment


@dataclass(frozen=True, slots=True)
class _Attached:
    epoch: int
    block_tokens: int
    num_keys: int  # that its pools have room for


class ClusterCache:
    """Owns the index; used on the coordinator's loop. Instances attach before they report.

    An instance's keys are the chain's at the ends of its own blocks, so that instances are asked for by the
    size of their blocks. Blocks that are no whole granules are not cached.
    """

    def __init__(self) -> None:
        self.version = 0  # goes up when an answer may have changed
        self.num_lives = 0  # begun and ended so far
        self._index = ClusterIndex()
        self._attached: dict[str, _Attached] = {}
        self._by_block: dict[int, int] = {}  # masks of instances, by the tokens of their blocks
        self._reserved = 0

    def attach(self, info: InstanceInfo) -> None:
        """A new life of an instance, which has nothing yet and reports what it keeps."""
        self.detach(info.instance_id)
        num_keys = info.total_kv_blocks + info.total_embedding_blocks
        self._attached[info.instance_id] = _Attached(info.epoch, info.block_tokens, num_keys)
        self._index.attach(info.instance_id, info.epoch)
        if info.block_tokens % GRANULE_TOKENS == 0:
            alike = self._by_block.get(info.block_tokens, 0)
            self._by_block[info.block_tokens] = alike | self.mask_of((info.instance_id,))
        self._reserve()
        self.num_lives += 1
        self.version += 1

    def detach(self, instance_id: str) -> None:
        """It has nothing any more. Unknown ones are no error."""
        attached = self._attached.pop(instance_id, None)
        if attached is None:
            return
        alike = self._by_block.pop(attached.block_tokens, 0) & ~self.mask_of((instance_id,))
        if alike:
            self._by_block[attached.block_tokens] = alike
        self._index.detach(instance_id)
        self.num_lives += 1
        self.version += 1

    def update(self, instance_id: str, epoch: int, report: CacheReport) -> None:
        """What an instance says in this life; nothing if it lives another one now."""
        if self._index.update(instance_id, epoch, report.stored, report.evicted):
            self.version += 1

    def tidy(self) -> None:
        """Call it now and then: it takes out what instances that are gone have left."""
        self._index.tidy()

    def prefix_tokens(self, chain: Sequence[bytes], without: int = 0) -> Prefixes:
        """For each instance that has some of it, how many leading tokens of the chain it has. Those of the
        mask `without` are left out.
        """
        found = [
            self._index.prefixes(
                block_keys(chain, block_tokens), among=alike & ~without, key_tokens=block_tokens
            )
            for block_tokens, alike in self._by_block.items()
        ]
        if len(found) == 1:
            return found[0]
        return Prefixes(found[0].names if found else (), [level for each in found for level in each.levels])

    def mask_of(self, instance_ids: Iterable[str]) -> int:
        """Those of them that are attached, until instances come or go."""
        return self._index.mask_of(instance_ids)

    def instance_ids(self) -> Iterable[str]:
        """Those attached."""
        return self._attached.keys()

    def holders(self, key: bytes) -> list[str]:
        """The instances that have this embedding."""
        return self._index.holders(key)

    @property
    def num_keys(self) -> int:
        return len(self._index)

    @property
    def size_bytes(self) -> int:
        """Of the index."""
        return self._index.size_bytes

    def _reserve(self) -> None:
        wanted = sum(each.num_keys for each in self._attached.values())
        if wanted > self._reserved:
            self._reserved = int(wanted * _ROOM)
            self._index.reserve(self._reserved)
