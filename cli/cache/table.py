"""What caches hold and did, as `elasticmm cache stats` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.console import make_console

if TYPE_CHECKING:
    from elasticmm_client.caches import ClusterCache, PoolCache

_MIB = 1 << 20


def show(cache: ClusterCache) -> None:
    """One row per instance and pool, and a line on the index of them all."""
    from rich import box
    from rich.table import Table

    console = make_console()
    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("id", "pool"):
        table.add_column(header)
    for header in ("entries", "device MiB", "host MiB", "lookups", "hits", "hit MiB", "saved s", "stored"):
        table.add_column(header, justify="right")
    table.add_column("evicted")
    for header in ("refused", "to / from host", "pulled"):
        table.add_column(header, justify="right")
    for instance in cache.instances:
        for pool in instance.pools:
            table.add_row(instance.id, *row(pool))
    console.print(table if table.row_count else "no instance has told of its caches yet")
    console.print(f"index: {cache.index_keys} keys in {cache.index_bytes / _MIB:.1f} MiB")


def row(pool: PoolCache) -> tuple[str, ...]:
    """The cells of one pool, without its instance."""
    return (
        pool.pool,
        str(pool.entries),
        _used(pool.device_bytes, pool.device_capacity_bytes),
        _used(pool.host_bytes, pool.host_capacity_bytes),
        str(pool.lookups),
        str(pool.hits),
        f"{pool.hit_bytes / _MIB:.1f}",
        f"{pool.saved_s:.1f}",
        str(pool.stored),
        " ".join(f"{cause} {count}" for cause, count in sorted(pool.evictions.items()) if count) or "-",
        str(pool.refused),
        f"{pool.demoted} / {pool.promoted}",
        f"{pool.pulled} ({pool.pulled_bytes / _MIB:.1f} MiB)" if pool.pulled else "-",
    )


def _used(num_bytes: int, capacity_bytes: int) -> str:
    return f"{num_bytes / _MIB:.1f}/{capacity_bytes / _MIB:.1f}" if capacity_bytes else "-"
