"""elasticmm logs: what the parts of a cluster that `up` started have logged."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exits import fail, print_json
from cli.options import NameOption, StateDirOption
from cli.state import DEFAULT_NAME, find_state_dir

if TYPE_CHECKING:
    from cli.log_files import Entry

_POLL_S = 0.2


def run(
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written, until Ctrl-C.")
    ] = False,
    instance: Annotated[
        str | None, typer.Option("--instance", metavar="NAME", help="Only what it wrote, or what names it.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, help="Begin with the newest so many.")
    ] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per entry.")] = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
) -> None:
    """Shows the logs of supervisor, coordinator and stage servers in order of time."""
    from cli.log_files import log_files, read_all

    state = find_state_dir(state_dir, name)
    files = log_files(state.path)
    if not files:
        fail(f"no logs are in {state.path}: 'elasticmm up' on this host writes them", as_json=as_json)
    show(_of(instance, read_all(files))[-limit:], as_json=as_json)
    with contextlib.suppress(KeyboardInterrupt):
        while follow:
            time.sleep(_POLL_S)
            show(_of(instance, read_all(files)), as_json=as_json)


def show(entries: Iterable[Entry], *, as_json: bool) -> None:
    """Each line behind the part that wrote it."""
    for entry in entries:
        if as_json:
            print_json(dataclasses.asdict(entry))
        else:
            for line in entry.text.splitlines() or [""]:
                print(f"{entry.part:<11}  {line}", flush=True)


def _of(instance: str | None, entries: list[Entry]) -> list[Entry]:
    return [each for each in entries if instance is None or each.names(instance)]
