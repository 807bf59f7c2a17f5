"""How far a run is, while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.load.outcomes import Outcome
from cli.load.sending import OnOutcome


@contextmanager
def progress_bar(console: Console, label: str, total: int) -> Iterator[OnOutcome]:
    """Requests done, tokens so far and failures; to be told of each outcome."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, TextColumn("{task.fields[note]}"), console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(label, total=total, note="")
        num_tokens, num_failed = 0, 0

        def on_outcome(outcome: Outcome) -> None:
            nonlocal num_tokens, num_failed
            num_tokens += outcome.output_tokens
            num_failed += not outcome.is_ok
            note = f"{num_tokens} tokens" + (f", {num_failed} failed" if num_failed else "")
            progress.update(task, advance=1, note=note)

        yield on_outcome
