"""elasticmm status: what runs, where, and how busy it is."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cli.cache_summary import cache_summary, totals
from cli.connection import admin_of, endpoint_of
from cli.console import make_console
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME
from cli.transfer_table import transfer_table

if TYPE_CHECKING:
    from rich.table import Table

    from elasticmm_client.caches import ClusterCache
    from elasticmm_client.status import ClusterStatus, InstanceStatus


def run(
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Shows the cluster's instances (id, group, roles, device, load, free blocks) and their transfers."""
    endpoint = endpoint_of(name, state_dir, address, token_file, as_json=as_json)
    with admin_of(endpoint, as_json=as_json) as admin:
        status = admin.status(timeout_s=10)
        cache = admin.cache(timeout_s=10)
    if as_json:
        caches = [dataclasses.asdict(each) for each in totals(cache)]
        print_json({"address": endpoint.address, **dataclasses.asdict(status), "caches": caches})
    else:
        show(endpoint.address, status, cache)


def show(address: str, status: ClusterStatus, cache: ClusterCache) -> None:
    """Two lines on the cluster, one on its caches if they are used, a table of its instances, and one of
    their transfers if there were any.
    """
    console = make_console()
    count = status.instances_missing
    missing = f", {count} {'instance' if count == 1 else 'instances'} missing" if count else ""
    console.print(
        f"{status.model} at {address}, topology {status.topology}{missing}, up {duration(status.uptime_s)}"
    )
    console.print(
        f"requests: {status.requests_running} running, {status.requests_waiting} waiting, "
        f"{status.requests_finished} finished, {status.requests_failed} failed"
    )
    if (line := cache_summary(cache)) is not None:
        console.print(line)
    console.print(_table(status))
    if (transfers := transfer_table(status)) is not None:
        console.print(transfers)


def _table(status: ClusterStatus) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("id", "group", "roles", "device", "dtype", "attention"):
        table.add_column(header)
    for header in ("requests", "load", "KV free", "emb. free", "uptime"):
        table.add_column(header, justify="right")
    for instance in status.instances:
        table.add_row(*row(instance))
    return table


def row(instance: InstanceStatus) -> tuple[str, ...]:
    """The cells of one instance."""
    return (
        instance.id,
        instance.group,
        "+".join(instance.roles),
        instance.device,
        instance.dtype,
        instance.attention_backend,
        str(instance.requests),
        load(instance),
        f"{instance.free_kv_blocks}/{instance.total_kv_blocks}",
        f"{instance.free_embedding_blocks}/{instance.total_embedding_blocks}",
        duration(instance.uptime_s),
    )


def load(instance: InstanceStatus) -> str:
    """What is in work per stage it plays: "enc 1+2 pre 1 (512 tok) dec 8", "+" for waiting ones.

    Then the blocks in quarantine, if any.
    """
    parts = []
    if "encode" in instance.roles:
        parts.append(f"enc {instance.encode_running}+{instance.encode_waiting}")
    if "prefill" in instance.roles:
        parts.append(f"pre {instance.sequences_prefilling} ({instance.prefill_waiting_tokens} tok)")
    if "decode" in instance.roles:
        parts.append(f"dec {instance.sequences_decoding}")
    if instance.quarantined_blocks:
        parts.append(f"{instance.quarantined_blocks} quarantined")
    return " ".join(parts)


def duration(seconds: float) -> str:
    """ "42s", "3m05s", "2h10m", "5d03h", "10m"."""
    whole = int(seconds)
    for unit, below, span in (("d", "h", 86400), ("h", "m", 3600), ("m", "s", 60)):
        if whole >= span:
            rest = (whole % span) // {"h": 3600, "m": 60, "s": 1}[below]
            return f"{whole // span}{unit}" + (f"{rest:02d}{below}" if rest else "")
    return f"{whole}s"
