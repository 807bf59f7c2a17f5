"""KV that has come whole, until the engine can go on with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from core.grammars import Matcher
from core.sequence import SequenceSpec
from core.stages import Stage
from kv_transfer.blocks import BlockAllocator
from stage_servers.preparation import Preparation
from stage_servers.reports import Key
from stage_servers.tasks import TaskTable

if TYPE_CHECKING:
    from stage_servers.engine.engine import Engine


Admit = Callable[[Key, Stage, Callable[[], None], Sequence[int]], None]


class Landing:
    """A sequence with a format waits for that to be compiled, which may take longer than its KV: in the
    engine's thread it would hold all others up. On the event loop.
    """

    def __init__(
        self,
        engine: Engine,
        blocks: BlockAllocator,
        preparation: Preparation,
        tasks: TaskTable,
        admit: Admit,
    ) -> None:
        """`admit`: of the instance; the blocks are the engine's, or freed, once that is called."""
        self._engine = engine
        self._blocks = blocks
        self._preparation = preparation
        self._tasks = tasks
        self._admit = admit
        self._waiting: dict[Key, list[int]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, spec: SequenceSpec) -> None:
        """Its KV is on its way, and takes longer to come than most formats to be compiled."""
        if spec.format is not None:
            self._tasks.spawn(spec.key, self._preparation.compile(spec))

    def add(self, spec: SequenceSpec, block_ids: list[int], num_tokens: int) -> None:
        """The KV of `num_tokens` tokens lies in these blocks."""
        if spec.format is None:
            self._begin(spec, block_ids, num_tokens, None)
            return
        self._waiting[spec.key] = block_ids
        self._tasks.spawn(spec.key, self._wait(spec, num_tokens))

    def drop(self, key: Key) -> None:
        """Once its tasks have ended; keys that do not wait are no error."""
        self._blocks.release(self._waiting.pop(key, ()))

    async def _wait(self, spec: SequenceSpec, num_tokens: int) -> None:
        matcher = await self._preparation.matcher(spec)
        self._begin(spec, self._waiting.pop(spec.key), num_tokens, matcher)

    def _begin(
        self, spec: SequenceSpec, block_ids: list[int], num_tokens: int, matcher: Matcher | None
    ) -> None:
        add = partial(self._engine.add_decode, spec, block_ids, num_tokens, matcher)
        self._admit(spec.key, Stage.DECODE, add, block_ids)
