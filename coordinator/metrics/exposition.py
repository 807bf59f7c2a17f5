"""The registry of one coordinator, and its text."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector


class Metrics:
    """A registry of its own: several coordinators in one process do not meet in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)

    def add(self, collectors: Iterable[Collector]) -> None:
        """They are asked at every `render`, on its thread."""
        for collector in collectors:
            self.registry.register(collector)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """(content type, body) for a client that accepts these types, as in HTTP's header.

        Call it on the coordinator's loop, which owns all that it reads.
        """
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)
