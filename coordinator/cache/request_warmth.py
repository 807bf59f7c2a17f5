"""What caches hold of each accepted request: the live source of warmth."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.cache.cluster_cache import ClusterCache
from coordinator.cache.request_keys import RequestKeys
from coordinator.cache.under_way import EmbeddingsUnderWay
from coordinator.policy.books import Books
from coordinator.policy.warmth import COLD, Warmth
from coordinator.policy.work import Work
from core.clock import Clock

# So long an answer stands while who waits first is weighed at every event: reports come in batches anyhow.
_STANDS_S = 0.02


@dataclass(frozen=True, slots=True)
class _Answer:
    warmth: Warmth
    version: int
    instances: tuple[int, int]  # versions of which instances there are, and which are open
    until_s: float


class RequestWarmth:
    """Implements WarmthSource over the index and what is being encoded, for requests that the dispatcher has.

    Instances that take no new work are left out: they are emptied, or asked for nothing more.
    """

    def __init__(
        self, cache: ClusterCache, under_way: EmbeddingsUnderWay, books: Books, clock: Clock
    ) -> None:
        self.under_way = under_way
        self._cache = cache
        self._books = books
        self._clock = clock
        self._keys: dict[str, RequestKeys] = {}
        self._answers: dict[str, _Answer] = {}
        self._closed: frozenset[str] = frozenset()
        self._closed_mask = 0  # the same for the cache
        self._closed_at = -1, -1  # as `_Answer.instances`

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
        """Without instances that are gone or closed; of what others keep, as it was a moment ago."""
        keys = self._keys.get(request_id)
        if keys is None:
            return COLD
        answer, now_s = self._answers.get(request_id), self._clock.now_s()
        instances = self._books.version, self._cache.num_lives
        is_fresh = answer is not None and answer.instances == instances
        if answer is None or not (is_fresh and (answer.version == self.version or now_s < answer.until_s)):
            self._note_closed(instances)
            answer = _Answer(self._look_up(keys), self.version, instances, now_s + _STANDS_S)
            self._answers[request_id] = answer
        return answer.warmth

    def standing(self, request_id: str) -> Warmth:
        """The answer given last, else one that is not kept: who only looks on changes no later answer."""
        answer, keys = self._answers.get(request_id), self._keys.get(request_id)
        if answer is not None:
            return answer.warmth
        if keys is None:
            return COLD
        self._note_closed((self._books.version, self._cache.num_lives))
        return self._look_up(keys)

    def check_idle(self) -> None:
        """Raises AssertionError if something is kept of a request; for when there are none."""
        assert not self._keys, f"keys of {sorted(self._keys)} are kept"
        assert not self._answers
        self.under_way.check_idle()

    def _look_up(self, keys: RequestKeys) -> Warmth:
        tokens = self._cache.prefix_tokens(keys.chain, self._closed_mask)
        return Warmth(tokens, tuple(self._holders(key) for key in keys.embeddings))

    def _holders(self, key: bytes | None) -> frozenset[str]:
        if key is None:
            return frozenset()
        names = frozenset((*self._cache.holders(key), *self.under_way.holders(key)))
        return names - self._closed if self._closed else names

    def _note_closed(self, instances: tuple[int, int]) -> None:
        """Few are, and seldom others, while many have the beginning of what all prompts begin with."""
        if instances != self._closed_at:
            self._closed_at = instances
            books = self._books.instances
            self._closed = frozenset(
                name for name in self._cache.instance_ids() if name not in books or not books[name].is_open
            )
            self._closed_mask = self._cache.mask_of(self._closed)
