"""First come, first served under a token budget; the least-loaded instance per stage."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.policy.view import (
    ClusterView,
    InstanceView,
    Placement,
    WaitingView,
    embedding_blocks,
    num_blocks,
)
from core.stages import Stage


class _Tally:
    """One instance's books while decisions of this round are added to them."""

    def __init__(self, view: InstanceView) -> None:
        self.view = view
        self.free_kv = view.total_kv_blocks - view.promised_kv_blocks
        self.encode_tokens = view.encode_tokens
        self.prefill_tokens = view.prefill_tokens
        self.sequences = view.sequences
        self.promised_embeddings = view.promised_embedding_blocks

    def kv_blocks(self, num_tokens: int) -> int:
        return num_blocks(num_tokens, self.view.block_tokens)

    def has_embedding_room(self, waiting: WaitingView) -> bool:
        total = self.view.total_embedding_blocks
        return total is None or self.promised_embeddings + embedding_blocks(waiting.media_tokens) <= total


class FcfsPolicy:
    """Requests go in order of (priority, arrival); the first that does not fit holds up the rest.

    A prefill instance takes requests while their prompts stay within
    `prefill_token_budget`, and always at least one. KV blocks for the prompt and
    the reserved output must be free on both ends. Ties go to the smaller id, so
    equal views give equal decisions.
    """

    def __init__(self, prefill_token_budget: int) -> None:
        self._budget = prefill_token_budget

    def place(self, view: ClusterView) -> tuple[Placement, ...]:
        tallies = [_Tally(instance) for instance in view.instances]
        placements: list[Placement] = []
        for waiting in sorted(view.waiting, key=_order):
            placement = self._place_one(waiting, tallies)
            if placement is None:
                break
            placements.append(placement)
        return tuple(placements)

    def _place_one(self, waiting: WaitingView, tallies: list[_Tally]) -> Placement | None:
        encoders = _playing(tallies, Stage.ENCODE)
        if waiting.media_tokens and not encoders:
            return None
        pair = self._choose_pair(waiting, tallies)
        if pair is None:
            return None
        prefill, decode = pair
        encode = [_take_encoder(encoders, tokens, prefill) for tokens in waiting.media_tokens]
        _book(waiting, prefill, decode)
        return Placement(
            request_id=waiting.request_id,
            encode=tuple(encode),
            prefill=prefill.view.instance_id,
            decode=decode.view.instance_id,
        )

    def _choose_pair(self, waiting: WaitingView, tallies: list[_Tally]) -> tuple[_Tally, _Tally] | None:
        """An instance that plays both stages keeps its KV; only if none can does KV move away from one."""
        prefills = sorted(_playing(tallies, Stage.PREFILL), key=_prefill_load)
        able = [prefill for prefill in prefills if self._can_prefill(waiting, prefill)]
        for may_leave in (False, True):
            for prefill in able:
                decode = _choose_decode(waiting, prefill, tallies, may_leave)
                if decode is not None:
                    return prefill, decode
        return None

    def _can_prefill(self, waiting: WaitingView, prefill: _Tally) -> bool:
        over_budget = prefill.prefill_tokens and prefill.prefill_tokens + waiting.prompt_tokens > self._budget
        has_room = prefill.free_kv >= prefill.kv_blocks(waiting.prompt_tokens)
        return not over_budget and has_room and prefill.has_embedding_room(waiting)


def _choose_decode(
    waiting: WaitingView, prefill: _Tally, tallies: list[_Tally], may_leave: bool
) -> _Tally | None:
    """The least loaded with room for the whole; the prefill instance itself if it decodes."""
    is_both = Stage.DECODE in prefill.view.roles
    candidates = [prefill] if is_both and not may_leave else _playing(tallies, Stage.DECODE)
    whole = waiting.prompt_tokens + waiting.reserve_tokens
    fitting = [tally for tally in candidates if tally.free_kv >= tally.kv_blocks(whole)]
    return min(fitting, key=_decode_load, default=None)


def _order(waiting: WaitingView) -> tuple[int, float, str]:
    return -waiting.priority, waiting.arrival_s, waiting.request_id


def _playing(tallies: Iterable[_Tally], stage: Stage) -> list[_Tally]:
    return [tally for tally in tallies if stage in tally.view.roles]


def _prefill_load(tally: _Tally) -> tuple[int, int, str]:
    return tally.prefill_tokens + tally.encode_tokens, tally.sequences, tally.view.instance_id


def _decode_load(tally: _Tally) -> tuple[int, int, str]:
    return tally.sequences, -tally.free_kv, tally.view.instance_id


def _take_encoder(encoders: list[_Tally], num_tokens: int, prefill: _Tally) -> str:
    """The encoder with least waiting tokens; at a tie the prefill instance itself."""
    chosen = min(encoders, key=lambda t: (t.encode_tokens, t is not prefill, t.view.instance_id))
    chosen.encode_tokens += num_tokens
    return chosen.view.instance_id


def _book(waiting: WaitingView, prefill: _Tally, decode: _Tally) -> None:
    whole = waiting.prompt_tokens + waiting.reserve_tokens
    if prefill is not decode:
        prefill.free_kv -= prefill.kv_blocks(waiting.prompt_tokens)
    decode.free_kv -= decode.kv_blocks(whole)
    decode.sequences += 1
    prefill.prefill_tokens += waiting.prompt_tokens
    prefill.promised_embeddings += embedding_blocks(waiting.media_tokens)
