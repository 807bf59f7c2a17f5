"""What caches hold of each accepted request: the live source of warmth."""

from __future__ import annotations

from coordinator.cache.cluster_cache import ClusterCache
from coordinator.cache.request_keys import RequestKeys
from coordinator.cache.under_way import EmbeddingsUnderWay
from coordinator.policy.books import Books
from coordinator.policy.warmth import COLD, Warmth
from coordinator.policy.work import Work


class RequestWarmth:
    """Implements WarmthSource over the index and what is being encoded, for requests that the dispatcher has.

    Instances that take no new work are left out: they are emptied, or asked for nothing more.
    """

    def __init__(self, cache: ClusterCache, under_way: EmbeddingsUnderWay, books: Books) -> None:
        self.under_way = under_way
        self._cache = cache
        self._books = books
        self._keys: dict[str, RequestKeys] = {}
        self._answers: dict[str, tuple[int, Warmth]] = {}  # with the version that they are of

    @property
    def version(self) -> int:
        return self._cache.version + self.under_way.version + self._books.version

    def enter(self, request_id: str, keys: RequestKeys | None) -> None:
        """A request, or one that has grown, under these keys; None: nothing of it is cached anywhere."""
        self._answers.pop(request_id, None)
        if keys is not None:
            self._keys[request_id] = keys

    def leave(self, request_id: str) -> None:
        """Unknown ones are no error."""
        self._keys.pop(request_id, None)
        self._answers.pop(request_id, None)

    def of(self, work: Work) -> Warmth:
        return self.of_request(work.request_id)

    def of_request(self, request_id: str) -> Warmth:
        """Looked up once per version: several rules ask for the same request."""
        keys = self._keys.get(request_id)
        if keys is None:
            return COLD
        version, warmth = self._answers.get(request_id, (-1, COLD))
        if version != self.version:
            warmth = self._look_up(keys)
            self._answers[request_id] = self.version, warmth
        return warmth

    def check_idle(self) -> None:
        """Raises AssertionError if something is kept of a request; for when there are none."""
        assert not self._keys, f"keys of {sorted(self._keys)} are kept"
        assert not self._answers
        self.under_way.check_idle()

    def _look_up(self, keys: RequestKeys) -> Warmth:
        found = self._cache.prefix_tokens(keys.chain)
        tokens = {name: num_tokens for name, num_tokens in found.items() if self._is_open(name)}
        return Warmth(tokens, tuple(self._holders(key) for key in keys.embeddings))

    def _holders(self, key: bytes | None) -> frozenset[str]:
        if key is None:
            return frozenset()
        names = (*self._cache.holders(key), *self.under_way.holders(key))
        return frozenset(name for name in names if self._is_open(name))

    def _is_open(self, instance_id: str) -> bool:
        book = self._books.instances.get(instance_id)
        return book is not None and book.is_open
