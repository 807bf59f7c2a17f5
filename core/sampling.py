"""How tokens are drawn: the complete parameters, defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Read by the sampler; ranges are checked at the door (coordinator).

    A draw depends on (seed, token index) only, so that a sequence can go on
    on another instance.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0 keeps all
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0  # 64 bits
    logprobs: int | None = None  # alternatives per token, None reports nothing
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, what is added to its logit), by token id

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)

    @property
    def is_plain(self) -> bool:
        """Whether the highest logit is the token."""
        return self.is_greedy and not self.has_penalties and not self.logit_bias
