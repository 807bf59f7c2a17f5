"""In which order an engine takes prompts into its steps.

One rule for stage servers and the simulator; docs/architecture.md describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Literal, Protocol, TypeVar, get_args

PromptOrder = Literal["text-first", "arrival"]
PROMPT_ORDERS: tuple[str, ...] = get_args(PromptOrder)

Encoding = Literal["pipelined", "blocking"]  # whether a prompt starts before all of its media are encoded
ENCODINGS: tuple[str, ...] = get_args(Encoding)

_REST_SHARE = 8  # of a step's tokens: the rest of a prompt that may go over the budget


class Prompt(Protocol):
    """What the order looks at. Two prompts are equal only if they are the same."""

    @property
    def has_media(self) -> bool: ...

    @property
    def num_ready(self) -> int:
        """Tokens still to be computed that nothing is missing for."""
        ...

    @property
    def is_started(self) -> bool:
        """Whether it has its blocks."""
        ...


P = TypeVar("P", bound=Prompt)
Admit = Callable[[P, P | None], bool]


def choose_chunks(
    prompts: Iterable[P], budget: int, step_tokens: int, admit: Admit[P], order: PromptOrder
) -> list[tuple[P, int]]:
    """How many tokens of which prompts run in a step that has `budget` of its `step_tokens` left for them.

    `prompts` are in order of arrival, and so is the answer. `admit(prompt, kept)` takes blocks for a whole
    new prompt if as many as `kept` needs are left then, and says whether it did; the prompt may be ready for
    fewer tokens after that, where a cache had some.
    """
    if order == "arrival" or budget < 2:
        return _Step(admit, step_tokens).in_order(prompts, budget)
    ready = [prompt for prompt in prompts if prompt.num_ready > 0]
    if len(ready) < 2:
        return _alone(ready[0], budget, step_tokens, admit) if ready else []
    texts = [prompt for prompt in ready if not prompt.has_media]
    if len(texts) in (0, len(ready)):
        return _Step(admit, step_tokens).in_order(ready, budget)
    return _Step(admit, step_tokens).text_first(ready, texts, budget)


def is_text_ready(prompts: Iterable[P], fits: Callable[[P], bool]) -> bool:
    """Whether a step could run a prompt without media; `fits`: a new one would find its blocks."""
    texts = [prompt for prompt in prompts if not prompt.has_media and prompt.num_ready > 0]
    if not texts:
        return False
    waiting = next((prompt for prompt in texts if not prompt.is_started), None)
    return any(prompt.is_started for prompt in texts) or (waiting is not None and fits(waiting))


def _alone(prompt: P, budget: int, step_tokens: int, admit: Admit[P]) -> list[tuple[P, int]]:
    """As `_Step` does it, of the only prompt that is ready: what most steps have."""
    if not prompt.is_started and not admit(prompt, None):
        return []
    wanted = prompt.num_ready
    return [(prompt, _size(wanted, budget, step_tokens // _REST_SHARE))] if wanted > 0 else []


def _size(wanted: int, budget: int, short_rest: int) -> int:
    """A short rest goes along: its own step would cost more."""
    return wanted if wanted - budget <= short_rest else budget


class _Step(Generic[P]):
    """What one step takes of each prompt."""

    __slots__ = ("_admit", "_short_rest", "_taken")

    def __init__(self, admit: Admit[P], step_tokens: int) -> None:
        self._admit = admit
        self._short_rest = step_tokens // _REST_SHARE
        self._taken: dict[P, int] = {}

    def in_order(self, prompts: Iterable[P], budget: int) -> list[tuple[P, int]]:
        self._fill(prompts, budget, self._short_rest, lambda _: None)
        return list(self._taken.items())

    def text_first(self, ready: Sequence[P], texts: Sequence[P], budget: int) -> list[tuple[P, int]]:
        """Prompts with media take their half before texts do, and what texts leave after them."""
        media = [prompt for prompt in ready if prompt.has_media]

        def kept(prompt: P) -> P | None:
            """The oldest new prompt of the other kind, if it is older."""
            others = texts if prompt.has_media else media
            oldest = next((other for other in others if not other.is_started), None)
            return oldest if oldest and ready.index(oldest) < ready.index(prompt) else None

        self._fill(media, (budget + 1) // 2, 0, kept)
        self._fill(texts, budget - sum(self._taken.values()), self._short_rest, kept)
        self._fill(media, budget - sum(self._taken.values()), self._short_rest, kept)
        return [(prompt, self._taken[prompt]) for prompt in ready if prompt in self._taken]

    def _fill(
        self, prompts: Iterable[P], budget: int, short_rest: int, kept: Callable[[P], P | None]
    ) -> None:
        """Spends the budget in the prompts' order."""
        is_short = False
        for prompt in prompts:
            if budget <= 0:
                return
            wanted = prompt.num_ready - self._taken.get(prompt, 0)
            if wanted <= 0:
                continue
            if not prompt.is_started and (is_short or not self._admit(prompt, kept(prompt))):
                # Strictly in order: a later, smaller prompt must not keep a large one waiting for ever.
                is_short = True
                continue
            wanted = prompt.num_ready - self._taken.get(prompt, 0)  # less where its start found KV for more
            if wanted <= 0:
                continue
            size = _size(wanted, budget, short_rest)
            self._taken[prompt] = self._taken.get(prompt, 0) + size
            budget -= size
