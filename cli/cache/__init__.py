"""elasticmm cache: what caches hold, emptying them, and why a request found no more."""

from __future__ import annotations

import typer

from cli.cache import explain, flush, stats

app = typer.Typer(no_args_is_help=True, help="Shows, empties and explains caches of KV and embeddings.")
app.command("stats", short_help="Show sizes, hits, evictions and seconds saved.")(stats.run)
app.command("flush", short_help="Empty them.")(flush.run)
app.command("explain", short_help="Say what a request found in them, and why not more.")(explain.run)
