"""The unified cache of a simulated cluster: what every instance keeps, and who has what."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coordinator.policy.warmth import COLD, Warmth
from coordinator.policy.work import Work
from core.profile import Profile
from simulator.cache_counts import CacheCounts
from simulator.chains import picture_key, prompt_chain, whole_chain
from simulator.job import Job
from simulator.kept import Granule, KeptEmbeddings, KeptKv

Waiting = tuple[Job, int, int]  # job, media item, attempt


class UnifiedCache:
    """A `WarmthSource` that knows all at once; what it says may be gone when a dispatch arrives.

    Of an embedding that is being made on an instance no second one is made there: who asks for it waits.
    """

    def __init__(self, profile: Profile) -> None:
        self.counts = CacheCounts()
        self.version = 0
        self._profile = profile
        self._kv: dict[str, KeptKv] = {}
        self._embeddings: dict[str, KeptEmbeddings] = {}
        self._flights: dict[tuple[str, bytes], list[Waiting]] = {}  # who waits for which encode of whom
        self._chains: dict[str, list[Granule]] = {}  # by request
        self._jobs: Mapping[str, Job] = {}
        self._now_s: Callable[[], float] = lambda: 0.0

    def join(self, jobs: Mapping[str, Job], now_s: Callable[[], float]) -> None:
        """Of the cluster that it serves."""
        self._jobs, self._now_s = jobs, now_s

    def add(self, name: str, room_tokens: Callable[[], int]) -> None:
        """An instance of it, with so much room in its KV pool at any time."""
        self._kv[name] = KeptKv(self._profile, room_tokens)
        self._embeddings[name] = KeptEmbeddings(self._profile)

    def of(self, work: Work) -> Warmth:
        now_s, job = self._now_s(), self._jobs[work.request_id]
        chain, pictures = self._chain(job), job.request.pictures
        if not chain and not pictures:
            return COLD
        has = {name: kept.tokens(chain, now_s) for name, kept in self._kv.items()} if chain else {}
        media = tuple(self._holders(each.digest, now_s) for each in pictures)
        return Warmth({name: tokens for name, tokens in has.items() if tokens}, media)

    # prefixes

    def take_prefix(self, name: str, job: Job) -> int:
        """Leading tokens whose KV the instance has."""
        return self._kv[name].take(self._chain(job), self._now_s())

    def put_pulled(self, name: str, job: Job, num_tokens: int) -> None:
        """The leading tokens that another instance has sent."""
        self._put(name, [each for each in self._chain(job) if each.end_token <= num_tokens])

    def put_prompt(self, name: str, job: Job, own_tokens: int) -> None:
        """`own_tokens`: the room that it lies in."""
        self._put(name, self._chain(job), own_tokens)

    def put_whole(self, name: str, job: Job) -> None:
        """Once it has ended."""
        self._put(name, whole_chain(job.request, job.work, self._profile))

    def forget(self, job: Job) -> None:
        self._chains.pop(job.request.request_id, None)

    def _chain(self, job: Job) -> list[Granule]:
        """Asked again and again while it waits."""
        request_id = job.request.request_id
        if request_id not in self._chains:
            self._chains[request_id] = prompt_chain(job.request, job.work, self._profile)
        return self._chains[request_id]

    def _put(self, name: str, chain: list[Granule], own_tokens: int = 0) -> None:
        if chain:
            self._kv[name].put(chain, self._now_s(), own_tokens)
            self.version += 1

    # embeddings

    def take_embedding(self, name: str, waiting: Waiting) -> bool:
        """Whether the instance has it."""
        digest = _digest(waiting)
        return digest is not None and self._embeddings[name].take(picture_key(digest), self._now_s())

    def awaits(self, name: str, waiting: Waiting) -> bool:
        """Whether the instance is making it: `made` will say when that is over. If not, it is from now on."""
        digest = _digest(waiting)
        if digest is None:
            return False
        key = name, picture_key(digest)
        if key in self._flights:
            self._flights[key].append(waiting)
            return True
        self._flights[key] = []
        self.version += 1
        return False

    def made(self, name: str, job: Job, index: int) -> list[Waiting]:
        """Keeps an embedding and returns who waited for it."""
        digest = job.request.pictures[index].digest
        if digest is None:
            return []
        key = picture_key(digest)
        self._embeddings[name].put(key, job.work.media[index].num_tokens, self._now_s())
        self.version += 1
        return self._flights.pop((name, key), [])

    def check_idle(self) -> None:
        """Raises AssertionError where books are wrong or something is waited for."""
        assert not self._flights, f"still made: {list(self._flights)}"
        assert not self._chains, f"of requests that ended: {list(self._chains)}"
        for name, kept in self._kv.items():
            kept.check_integrity()
            self._embeddings[name].check_integrity()

    def _holders(self, digest: int | None, now_s: float) -> frozenset[str]:
        if digest is None:
            return frozenset()
        key = picture_key(digest)
        return frozenset(
            name
            for name, kept in self._embeddings.items()
            if kept.has(key, now_s) or (name, key) in self._flights
        )


def _digest(waiting: Waiting) -> int | None:
    job, index, _ = waiting
    return job.request.pictures[index].digest
