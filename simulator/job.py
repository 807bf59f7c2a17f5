"""One request on its way through the simulated cluster."""

from __future__ import annotations

from coordinator.policy.work import Work
from core.lifecycle import RequestState, is_final, move
from simulator.workload.request import Request


class Job:
    """What the cluster knows of a request beside what policies see (`work`), and when what happened.

    `attempt` goes up when it is dispatched again: events of an earlier dispatch are outdated then.
    `membership` does the same for its place in a decode batch.
    """

    __slots__ = (
        "attempt",
        "blocks",
        "computed",
        "dispatched_s",
        "encoded_s",
        "finished_s",
        "first_token_s",
        "has_lease",
        "has_media",
        "is_pulling",
        "is_recomputing",
        "joined_context",
        "joined_outputs",
        "joined_step",
        "kv_there_s",
        "leased_blocks",
        "membership",
        "order",
        "outputs",
        "prefix_tokens",
        "preprocessed",
        "ready",
        "request",
        "state",
        "target_tokens",
        "unsent_tokens",
        "work",
    )

    def __init__(self, request: Request, work: Work, order: int) -> None:
        self.request = request
        self.work = work
        self.has_media = bool(work.media)
        self.order = order  # of arrival: who came later gives way first
        self.state = RequestState.QUEUED
        self.attempt = 0
        self.membership = 0
        self.outputs = 0
        # on the prefill instance
        self.target_tokens = 0  # to compute before the next token comes out
        self.computed = 0
        self.ready = 0  # tokens that nothing is missing for
        self.preprocessed = 0
        self.blocks = 0
        self.is_recomputing = False
        self.prefix_tokens = 0  # of `computed`, taken from caches
        self.is_pulling = False  # some of these are on their way here
        self.unsent_tokens = 0  # computed, not on their way to the decoder yet
        self.kv_there_s = 0.0  # when what was sent so far has arrived
        # on the decode instance
        self.has_lease = False
        self.leased_blocks = 0  # for a hand-over that has not ended
        self.joined_step = 0
        self.joined_context = 0
        self.joined_outputs = 0
        # when
        self.dispatched_s: float | None = None
        self.encoded_s: float | None = None
        self.first_token_s: float | None = None
        self.finished_s: float | None = None

    def start(self, side_tokens: int) -> None:
        """A dispatch begins; `side_tokens` of the prompt are not computed."""
        self.attempt += 1
        self.target_tokens = self.work.computed_tokens
        self.computed = self.unsent_tokens = side_tokens
        self.ready = self.target_tokens if not self.work.media else side_tokens
        self.preprocessed = self.prefix_tokens = 0
        self.is_pulling = False
        self.has_lease = False
        self.leased_blocks = 0

    def is_outdated(self, attempt: int) -> bool:
        """Whether an event of that attempt has nothing to say any more."""
        return self.attempt != attempt or is_final(self.state)

    def go(self, wanted: RequestState) -> None:
        if self.state is not wanted:
            self.state = move(self.state, wanted)

    @property
    def num_ready(self) -> int:
        """Tokens to compute that nothing is missing for."""
        return 0 if self.is_pulling else self.ready - self.computed

    @property
    def is_started(self) -> bool:
        """Whether its prefill holds blocks."""
        return self.blocks > 0

    @property
    def is_local(self) -> bool:
        """Whether prefill and decode are on one instance."""
        placement = self.work.placement
        return placement is not None and placement.prefill == placement.decode
