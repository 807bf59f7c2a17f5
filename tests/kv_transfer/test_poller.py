"""Turns go round; what waits does not keep the thread busy."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kv_transfer.transports import poller as poller_module
from kv_transfer.transports.poller import Poller, Turn


class Work:
    """Answers its turns from a list; the last answer is DONE."""

    def __init__(self, log: list[str], name: str, *turns: Turn, then: Callable[[], object] = str) -> None:
        self.log = log
        self.name = name
        self.turns = [*turns, Turn.DONE]
        self.then = then
        self.ended = threading.Event()

    def run_turn(self) -> Turn:
        self.log.append(self.name)
        turn = self.turns.pop(0)
        if turn is Turn.DONE:
            self.then()
            self.ended.set()
        return turn


def test_turns_go_round() -> None:
    log: list[str] = []
    poller = Poller("test")
    work = [Work(log, "a", Turn.MOVED, Turn.MOVED), Work(log, "b", Turn.WAITS), Work(log, "c")]
    for each in work:
        poller.submit(each)
    poller.start()
    assert all(each.ended.wait(60) for each in work)
    poller.close()
    assert log == ["a", "b", "c", "a", "b", "a"]


def test_new_work_ends_a_pause() -> None:
    log: list[str] = []
    poller = Poller("test")
    poller.start()
    late = Work(log, "late")
    early = Work(log, "early", *[Turn.WAITS] * 3, then=lambda: poller.submit(late))
    poller.submit(early)
    assert late.ended.wait(60)
    poller.close()
    assert log == ["early"] * 4 + ["late"]


def test_pauses_grow_up_to_a_bound() -> None:
    poller = Poller("test")
    pauses: list[float | None] = []

    class Line:
        """Stands in for the queue: notes how long it was waited for."""

        def get(self, timeout: float | None) -> object:
            pauses.append(timeout)
            if len(pauses) == 1:
                return Work([], "waiting", *[Turn.WAITS] * 60)
            if len(pauses) == 60:
                return None
            raise poller_module.queue.Empty

        def get_nowait(self) -> object:
            raise poller_module.queue.Empty

    poller._new = Line()  # type: ignore[assignment]
    poller._run()
    shortest = poller_module.SHORTEST_PAUSE_S
    assert pauses[:3] == [None, shortest, shortest * poller_module.PAUSE_GROWTH]
    assert pauses[-1] == poller_module.LONGEST_PAUSE_S


def test_closing_leaves_what_waits() -> None:
    log: list[str] = []
    poller = Poller("test")
    poller.submit(Work(log, "endless", *[Turn.WAITS] * 100_000))
    poller.start()
    poller.close()
    assert log[:1] == ["endless"]
    assert poller._thread is None
