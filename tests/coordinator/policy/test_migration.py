from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.policy.migration import choose_target, refusal
from coordinator.policy.view import InstanceView, num_blocks
from core.stages import Stage

D = frozenset({Stage.DECODE})
VIEWS = st.lists(
    st.builds(
        InstanceView,
        instance_id=st.sampled_from("abcdef"),
        roles=st.sampled_from([D, frozenset({Stage.PREFILL}), frozenset(Stage)]),
        block_tokens=st.sampled_from([8, 16]),
        total_kv_blocks=st.integers(1, 50),
        promised_kv_blocks=st.integers(0, 60),
        sequences=st.integers(0, 5),
    ),
    unique_by=lambda view: view.instance_id,
)


def view(name: str, sequences: int = 0, total: int = 100, promised: int = 0) -> InstanceView:
    return InstanceView(name, D, 16, total, promised, sequences=sequences)


def test_the_least_loaded_with_room() -> None:
    views = [view("a", 0), view("b", 3), view("c", 1, total=10), view("d", 2), view("e", 2, promised=50)]
    assert choose_target(views, "a", 16 * 40) == "d"
    assert choose_target(views, "a", 16 * 10) == "c"
    assert choose_target(views, "b", 16) == "a"


def test_nobody_has_room() -> None:
    assert choose_target([view("a"), view("b", promised=100)], "a", 1) is None
    assert choose_target([view("a")], "a", 1) is None


def test_reasons() -> None:
    prefill = InstanceView("p", frozenset({Stage.PREFILL}), 16, 10)
    assert refusal(prefill, 1) == "p does not play DECODE"
    assert (
        refusal(view("a", total=4, promised=3), 17)
        == "a has no room: 2 blocks are needed, 1 are not promised"
    )
    assert refusal(view("a", total=4, promised=2), 32) == ""


@given(VIEWS, st.integers(1, 400))
def test_the_choice_is_never_refused(views: list[InstanceView], num_tokens: int) -> None:
    chosen = choose_target(views, "a", num_tokens)
    able = [each for each in views if each.instance_id != "a" and not refusal(each, num_tokens)]
    assert (chosen is None) == (not able)
    if chosen is not None:
        best = next(each for each in able if each.instance_id == chosen)
        assert best.sequences == min(each.sequences for each in able)
        free = best.total_kv_blocks - best.promised_kv_blocks
        assert Stage.DECODE in best.roles
        assert free >= num_blocks(num_tokens, best.block_tokens)
