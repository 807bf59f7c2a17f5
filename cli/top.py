"""elasticmm top: the cluster as it works, again and again."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import admin_of, endpoint_of
from cli.console import make_console
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME

if TYPE_CHECKING:
    from rich.console import RenderableType

    from elasticmm_client import AdminClient


def run(
    *,
    interval_s: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.1, help="Seconds between two frames.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Shows instances, queues, times against targets, caches, transfers and decisions. Ctrl-C ends it.

    With --json it prints one object and ends, as with --once.
    """
    from cli.board.drawing import draw
    from cli.board.frame import take_frame

    endpoint = endpoint_of(name, state_dir, address, token_file, as_json=as_json)
    with admin_of(endpoint, as_json=as_json) as admin:
        if as_json:
            print_json(take_frame(endpoint.address, admin).to_json())
        elif once or not make_console().is_terminal:
            make_console().print(draw(take_frame(endpoint.address, admin)))
        else:
            _watch(endpoint.address, admin, interval_s)


def _watch(address: str, admin: AdminClient, interval_s: float) -> None:
    from rich.live import Live

    from cli.board.drawing import draw
    from cli.board.frame import take_frame
    from elasticmm_client.errors import Unavailable

    live = Live(console=make_console(), screen=True, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), live:
        live.update(draw(take_frame(address, admin)), refresh=True)
        while True:
            time.sleep(interval_s)
            try:
                shown: RenderableType = draw(take_frame(address, admin))
            except Unavailable as error:  # it may come back
                shown = f"{address} does not answer, asking again: {error}"
            live.update(shown, refresh=True)
