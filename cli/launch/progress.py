"""Shows how a start goes: a live table on a terminal, plain lines elsewhere. Both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.launch.events import LaunchEvent, PartState, Reporter

if TYPE_CHECKING:
    from rich.table import Table


@contextmanager
def show_progress(parts: tuple[str, ...], *, quiet: bool = False) -> Iterator[Reporter]:
    """Gives the reporter for one start. quiet: nothing but the failures that are raised."""
    if quiet:
        yield lambda event: None  # noqa: ARG005
    elif sys.stderr.isatty():
        with _live(parts) as report:
            yield report
    else:
        yield print_event


def print_event(event: LaunchEvent) -> None:
    """One line."""
    print(line_of(event), file=sys.stderr, flush=True)


def line_of(event: LaunchEvent) -> str:
    """ "p-0 (pid 7) failed: its reason"."""
    pid = f" (pid {event.pid})" if event.pid is not None else ""
    message = f": {event.message}" if event.message else ""
    return f"{event.part}{pid} {event.state.value}{message}"


@contextmanager
def _live(parts: tuple[str, ...]) -> Iterator[Reporter]:
    from rich.console import Console
    from rich.live import Live

    view = _View(parts)
    with Live(get_renderable=view.render, console=Console(stderr=True), refresh_per_second=8):
        yield view.take


class _View:
    """The last event of every part, with the seconds it took."""

    def __init__(self, parts: tuple[str, ...]) -> None:
        self._events: dict[str, LaunchEvent | None] = dict.fromkeys(parts)
        self._start_s = time.monotonic()
        self._at_s: dict[str, float] = {}

    def take(self, event: LaunchEvent) -> None:
        self._events[event.part] = event
        self._at_s[event.part] = time.monotonic()

    def render(self) -> Table:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for part, event in self._events.items():
            table.add_row(*self._row(part, event))
        return table

    def _row(self, part: str, event: LaunchEvent | None) -> tuple[str, str, str, str]:
        state = event.state if event else PartState.STARTING
        is_settled = state not in (PartState.STARTING, PartState.LOADING)
        now_s = self._at_s.get(part, self._start_s) if is_settled else time.monotonic()
        return part, _MARKS[state], f"{now_s - self._start_s:.1f} s", event.message if event else ""


_MARKS = {
    PartState.STARTING: "[dim]starting[/]",
    PartState.LOADING: "[yellow]loading[/]",
    PartState.READY: "[green]ready[/]",
    PartState.FAILED: "[red]failed[/]",
    PartState.EXITED: "[red]exited[/]",
}
