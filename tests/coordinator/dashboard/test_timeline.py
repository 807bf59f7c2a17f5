from types import SimpleNamespace
from typing import Any

from coordinator.dashboard.timeline import KEPT_S, Timeline
from core.clock import ManualClock
from core.stages import ModalityGroup, parse_roles


def state(**roles: str) -> Any:
    """Instances by name, with the letters that they play."""
    instances = [
        SimpleNamespace(
            info=SimpleNamespace(instance_id=name, roles=parse_roles(letters), group=ModalityGroup.TEXT)
        )
        for name, letters in roles.items()
    ]
    return SimpleNamespace(instances=instances, num_waiting=1, num_running=len(instances))


def spans(timeline: Timeline) -> list[tuple[str, str, float, float]]:
    return [(each.instance_id, each.roles, each.since_s, each.until_s) for each in timeline.spans]


def watched(*moments: tuple[float, dict[str, str]]) -> Timeline:
    clock = ManualClock()
    timeline = Timeline(clock)
    for at_s, roles in moments:
        clock.advance(at_s - clock.now_s())
        timeline.note(state(**roles))
    return timeline


def test_a_span_grows_until_the_instance_plays_something_else() -> None:
    timeline = watched((0, {"a": "p"}), (1, {"a": "p"}), (2, {"a": "d"}), (3, {"a": "d"}))
    assert spans(timeline) == [("a", "p", 0, 2), ("a", "d", 2, 3)]
    assert [each.num_running for each in timeline.samples] == [1] * 4


def test_an_instance_that_was_away_begins_anew() -> None:
    timeline = watched((0, {"a": "p", "b": "d"}), (1, {"b": "d"}), (9, {"a": "p"}))
    assert spans(timeline) == [("a", "p", 0, 0), ("b", "d", 0, 1), ("a", "p", 9, 9)]


def test_what_is_long_past_is_forgotten() -> None:
    timeline = watched((0, {"a": "p"}), (5, {"b": "d"}), (KEPT_S + 1, {"b": "d"}))
    assert spans(timeline) == [("b", "d", 5, 5), ("b", "d", KEPT_S + 1, KEPT_S + 1)]
    assert [each.at_s for each in timeline.samples] == [5, KEPT_S + 1]
