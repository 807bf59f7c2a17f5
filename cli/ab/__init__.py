"""elasticmm ab: two policy sets at once, on shares of the instances."""

from __future__ import annotations

import typer

from cli.ab import start, status, stop

app = typer.Typer(no_args_is_help=True, help="Compares two policy sets on shares of the instances.")
app.command("start", short_help="Have a second set act on a share of the instances.")(start.run)
app.command("status", short_help="Show how both arms meet the targets.")(status.run)
app.command("stop", short_help="Give all instances back to the first set.")(stop.run)
