"""How embeddings get to the sequences that are prefilled here, whoever makes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kv_transfer.errors import UnknownRequest
from stage_servers.cache.held import HeldEmbedding
from stage_servers.embeddings import EmbeddingShelf
from stage_servers.engine_thread import EngineThread
from stage_servers.expectations import Expectations
from stage_servers.held import HeldCalls
from stage_servers.reports import Key, Reports

if TYPE_CHECKING:
    import torch

    from stage_servers.engine.engine import Engine


class EmbeddingSupply:
    """Of one instance, on its event loop. What comes before the engine has the sequence waits in `held`; what
    comes after its end, as `to_prefill` knows it, is not taken.
    """

    def __init__(
        self,
        engine: Engine,
        thread: EngineThread,
        shelf: EmbeddingShelf,
        reports: Reports,
        *,
        to_prefill: Expectations,
        held: HeldCalls,
    ) -> None:
        self._engine = engine
        self._thread = thread
        self._shelf = shelf
        self._reports = reports
        self._to_prefill = to_prefill
        self._held = held

    def arrived(self, key: Key, item_index: int, block_ids: list[int], num_tokens: int) -> None:
        """A peer has written it into these blocks. Raises UnknownRequest; then they stay the receiver's."""
        self._check(key)
        self.provide(key, item_index, self._shelf.arrived(key, item_index, block_ids, num_tokens))

    def lent(self, key: Key, item_index: int, embedding: torch.Tensor, let_go: Callable[[], None]) -> None:
        """A peer has it in memory that is read here. Raises UnknownRequest; then nothing is let go of."""
        self._check(key)
        self.provide(key, item_index, self._shelf.put(key, HeldEmbedding(embedding, let_go)))

    def made_here(self, key: Key, item_index: int, held: HeldEmbedding) -> None:
        """Taken for as long as the sequence is here; one that has ended needs nothing."""
        if key in self._to_prefill:
            self.provide(key, item_index, self._shelf.put(key, held.share()))

    def needed(self, key: Key, item_indices: tuple[int, ...]) -> None:
        """Nobody sends these: the coordinator is asked for them."""
        if key in self._to_prefill:
            self._reports.needed(key, item_indices)

    def provide(self, key: Key, item_index: int, embedding: torch.Tensor) -> None:
        """To the engine; the shelf keeps the embedding until the sequence ends."""
        provide = partial(self._engine.provide_embedding, key, item_index, embedding)
        self._held.call(key, partial(self._thread.post, provide))

    def _check(self, key: Key) -> None:
        if key not in self._to_prefill:
            raise UnknownRequest(f"request {key[0]} has ended here")
