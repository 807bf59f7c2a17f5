"""elasticmm shadow: a second policy set that decides without acting."""

from __future__ import annotations

import typer

from cli.shadow import start, status, stop

app = typer.Typer(no_args_is_help=True, help="Has a second policy set decide without acting.")
app.command("start", short_help="Have a second set decide as well.")(start.run)
app.command("status", short_help="Show how often it decides otherwise.")(status.run)
app.command("stop", short_help="End it, with the last report.")(stop.run)
