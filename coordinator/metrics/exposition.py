"""The registry of one coordinator, and its text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

_OPEN_METRICS = "application/openmetrics-text"
# To who names no escaping, choose_encoder would write our colons as underscores in OpenMetrics: names that
# no query asks for. All our names are legal in every format.
_AS_NAMED = f"{_OPEN_METRICS}; version=1.0.0; escaping=allow-utf-8"


class Metrics:
    """A registry of its own: several coordinators in one process do not meet in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)

    def add(self, collectors: Iterable[Collector]) -> None:
        """They are asked at every `render`, on its thread."""
        for collector in collectors:
            self.registry.register(collector)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """As `exposition`; call it on the coordinator's loop, which owns all that it reads."""
        return exposition(self.registry, accept)


def exposition(registry: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """(content type, body) for a client that accepts these types, as in HTTP's header."""
    encode, content_type = choose_encoder(_AS_NAMED if _OPEN_METRICS in accept else "")
    return content_type, encode(_Timeless(registry))


class _Timeless(Collector):
    """Without the times at which counters began, a series more of each that nobody asks for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [each for each in metric.samples if not each.name.endswith("_created")]
            yield metric
