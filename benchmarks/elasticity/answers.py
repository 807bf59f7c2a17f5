"""Answers under disturbance against those of the same cluster undisturbed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elasticmm_client import GenerateResult

NEAR_TIE = 1e-4  # of the best two logits: float32 sums of another order may turn it
MAX_TIE_SHARE = 1e-4  # of the tokens compared


@dataclass(frozen=True, slots=True)
class Reference:
    """An undisturbed answer, with the gap between best and second best logit at each token."""

    tokens: tuple[int, ...]
    gaps: tuple[float, ...]


def reference_of(result: GenerateResult) -> Reference:
    """Of a greedy answer asked for with two alternatives a token."""
    gaps = tuple(each.top[0].logprob - each.top[1].logprob for each in result.logprobs)
    return Reference(result.token_ids, gaps)


@dataclass(slots=True)
class Tally:
    """What comparing came to. After a near tie the rest of that answer is another text and is left out."""

    num_answers: int = 0
    num_tokens: int = 0
    num_ties: int = 0
    num_left_out: int = 0
    num_wrong: int = 0  # answers with a token that differs and is no near tie, or of another length

    def compare(self, reference: Reference, tokens: Sequence[int]) -> None:
        self.num_answers += 1
        pairs = list(zip(tokens, reference.tokens, strict=False))
        first = next((at for at, pair in enumerate(pairs) if pair[0] != pair[1]), None)
        if len(tokens) != len(reference.tokens):
            self.num_wrong += 1
        elif first is None:
            self.num_tokens += len(tokens)
        elif reference.gaps[first] < NEAR_TIE:
            self.num_tokens += first + 1
            self.num_ties += 1
            self.num_left_out += len(tokens) - first - 1
        else:
            self.num_wrong += 1

    @property
    def is_exact(self) -> bool:
        """No wrong answer; at most one tie in 10,000 tokens, and one at all in a small run."""
        return not self.num_wrong and self.num_ties <= max(1, MAX_TIE_SHARE * self.num_tokens)
