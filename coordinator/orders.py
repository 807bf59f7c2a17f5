"""Tells the instances of a placement what to do for its request, and what their caches may spare them."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.cache.under_way import EmbeddingsUnderWay
from coordinator.registry import Instance, Registry
from coordinator.request import Request
from coordinator.stage_messages import DecodeCommand, EncodeCommand, Peer, PrefillCommand


class Orders:
    """Of dispatched requests only; nothing here waits."""

    def __init__(self, registry: Registry, under_way: EmbeddingsUnderWay) -> None:
        self._registry = registry
        self._under_way = under_way

    def send(self, request: Request) -> None:
        """To all stages at once: the decoder knows the request before its KV comes."""
        placement = request.placement
        assert placement is not None
        prefill, decode = self._instance(placement.prefill), self._instance(placement.decode)
        sequence = request.sequence()
        if decode is not prefill:
            decode.send(DecodeCommand(sequence, prefill.peer))
        prefill.send(
            PrefillCommand(sequence, decode.peer, self._prefix_peer(request), placement.prefix_tokens)
        )
        items = (index for index in range(len(request.media)) if index not in placement.skipped)
        self.send_encodes(request, items, prefill.peer, request.attempt)

    def send_encodes(self, request: Request, item_indices: Iterable[int], to: Peer, attempt: int) -> None:
        """Of these items, each to the instance that has its embedding or makes it, whatever it plays; they go
        to the peer that knows the request under this dispatch number.
        """
        placement = request.placement
        assert placement is not None
        for index in item_indices:
            name, media = placement.encode[index], request.media[index]
            key = request.embedding_key(index)
            if key is not None:
                self._under_way.begin(request.request_id, index, key, name)
            self._instance(name).send(
                EncodeCommand(request.request_id, attempt, media.item, media.span, to, request.cache)
            )

    def _prefix_peer(self, request: Request) -> Peer | None:
        """The source of the prefix, the prefill instance itself included; it is told of nothing."""
        assert request.placement is not None
        name = request.placement.prefix
        source = None if name is None else self._registry.get(name)
        return None if source is None else source.peer

    def _instance(self, name: str) -> Instance:
        instance = self._registry.get(name)
        assert instance is not None, f"placed on an instance that is gone: {name}"
        return instance
