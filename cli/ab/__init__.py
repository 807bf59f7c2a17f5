"""elasticmm ab: two policy sets at once, on shares of the instances."""

from __future__ import annotations

import typer

from cli.ab import start, status, stop

app = typer.Typer(no_args_is_help=True, help="Compares two policy sets on shares of the instances.")
app.command("start")(start.run)
app.command("status")(status.run)
app.command("stop")(stop.run)
