"""Fixed layouts: what N instances play where nothing is elastic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from coordinator.policy.forms import EP, PD, D, E, Form, Forms, P, Pool, assignments_of
from coordinator.policy.plan import Assignment
from core.stages import COUPLED, ModalityGroup

Layout = Callable[[Sequence[str]], dict[str, Assignment]]

# Of all instances, the part that serves text.
TEXT_SHARES: Mapping[str, float] = {"text-first": 0.75, "equal": 0.5, "multimodal-first": 0.25}


def present_layout(names: Sequence[str]) -> dict[str, Assignment]:  # noqa: ARG001
    """No opinion: everyone goes on with what it was started as."""
    return {}


def coupled_layout(names: Sequence[str]) -> dict[str, Assignment]:
    """Every instance does everything for everyone."""
    return dict.fromkeys(names, Assignment(COUPLED))


def static_layout(split: str) -> Layout:
    """Two groups by the split, each with its stages apart; coupled for fewer than three instances.

    Instances of the text group (n at least 1), its share of N rounded:
        1: PD          2 and more: half P (the odd one too), half D
    Instances of the multimodal group (all others, at least 1):
        1: EPD         2: EP, D          3 and more: a third E, a third D, the rest P
    With N = 8 that gives
        text-first        3P 3D | EP D
        equal             2P 2D | 1E 2P 1D
        multimodal-first  1P 1D | 2E 2P 2D
    """
    share = TEXT_SHARES[split]

    def layout(names: Sequence[str]) -> dict[str, Assignment]:
        if len(names) < 3:
            return coupled_layout(names)
        num_text = min(len(names) - 1, max(1, round(share * len(names))))
        forms = split_forms(num_text, len(names) - num_text)
        assignments = [each for each, size in assignments_of(forms).items() for _ in range(size)]
        return dict(zip(names, assignments, strict=True))

    return layout


def split_forms(num_text: int, num_multimodal: int) -> Forms:
    """Two groups with their stages apart as far as there are instances; one of them may be empty."""
    forms: dict[ModalityGroup, Form] = {}
    if num_text:
        forms[ModalityGroup.TEXT] = _text_form(num_text)
    if num_multimodal:
        forms[ModalityGroup.MULTIMODAL] = _multimodal_form(num_multimodal)
    return forms


def _text_form(count: int) -> Form:
    if count == 1:
        return (Pool(PD, 1),)
    return Pool(P, count - count // 2), Pool(D, count // 2)


def _multimodal_form(count: int) -> Form:
    if count == 1:
        return (Pool(COUPLED, 1),)
    if count == 2:
        return Pool(EP, 1), Pool(D, 1)
    third = count // 3
    return Pool(E, third), Pool(P, count - 2 * third), Pool(D, third)
