"""elasticmm cache: what caches hold, emptying them, and why a request found no more."""

from __future__ import annotations

import typer

from cli.cache import explain, flush, stats

app = typer.Typer(no_args_is_help=True, help="Shows, empties and explains caches of KV and embeddings.")
app.command("stats")(stats.run)
app.command("flush")(flush.run)
app.command("explain")(explain.run)
