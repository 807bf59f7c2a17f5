"""elasticmm shadow: a second policy set that decides without acting."""

from __future__ import annotations

import typer

from cli.shadow import start, status, stop

app = typer.Typer(no_args_is_help=True, help="Has a second policy set decide without acting.")
app.command("start")(start.run)
app.command("status")(status.run)
app.command("stop")(stop.run)
