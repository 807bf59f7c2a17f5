"""What dispatch chose for a request: as a placement, and in words and numbers for `elasticmm why`."""

from __future__ import annotations

from typing import NamedTuple

from coordinator.policy.decisions import Decision
from coordinator.policy.reuse import Start
from coordinator.policy.view import Placement
from coordinator.policy.work import Work


class Choice(NamedTuple):
    """Names of the chosen instances, the predicted seconds to the first token, and what was found there."""

    encode: tuple[str, ...]
    prefill: str
    decode: str
    first_s: float
    backlog_s: float  # of the prefill instance
    decode_step_s: float
    start: Start

    def placement(self, work: Work, now_s: float) -> Placement:
        start = self.start
        if not start.cached_tokens and len(start.needed) == len(work.media):
            return Placement(work.request_id, self.encode, self.prefill, self.decode, now_s)
        spared = frozenset(range(len(work.media))) - frozenset(start.needed)
        has_prefix = start.cached_tokens > 0
        return Placement(
            work.request_id,
            self.encode,
            self.prefill,
            self.decode,
            now_s,
            held=spared - start.skipped,
            skipped=start.skipped,
            prefix=(start.source or self.prefill) if has_prefix else None,
            prefix_tokens=start.cached_tokens,
            saved_s=work.prefill_s - start.prefill_s if has_prefix else 0.0,
        )

    def decision(self, work: Work, placement: Placement) -> Decision:
        now_s = placement.at_s
        numbers = {
            "waited_s": now_s - work.arrival_s,
            "first_token_in_s": self.first_s,
            "prefill_backlog_s": self.backlog_s,
            "decode_step_s": self.decode_step_s,
        }
        words = f"goes to prefill {self.prefill}, decode {self.decode}"
        words += f", encode {' '.join(self.encode)}" if self.encode else ""
        if placement.prefix is not None:
            numbers["cached_tokens"] = float(placement.prefix_tokens)
            numbers["saved_s"] = placement.saved_s
            words += f", {placement.prefix_tokens} tokens "
            words += f"pulled from {placement.prefix}" if self.start.source else "cached there"
        if self.start.source:
            numbers["pull_s"] = self.start.pull_s
        for name, items in (("held", placement.held), ("skipped", placement.skipped)):
            if items:
                numbers[f"{name}_items"] = float(len(items))
                words += f", {len(items)} {name}"
        return Decision(now_s, "dispatch", work.request_id, words, numbers)
