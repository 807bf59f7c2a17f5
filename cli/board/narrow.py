"""Tables for terminals that the full ones do not fit: fewer columns, what is alike summed up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from cli.board.frame import Frame
    from cli.percentiles import Percentiles
    from elasticmm_client.caches import PoolCache
    from elasticmm_client.plan import Decision
    from elasticmm_client.status import InstanceStatus

_WIDEST = 10_000


@dataclass(frozen=True, slots=True)
class Fitting:
    """The full one where it fits the terminal uncut, else the narrow one."""

    full: RenderableType
    narrow: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wanted = console.measure(self.full, options=options.update(width=_WIDEST, max_width=_WIDEST)).maximum
        yield self.full if wanted <= options.max_width else self.narrow


def instance_table(frame: Frame, instances: Iterable[InstanceStatus]) -> Table:
    """Work as counts: items in encoders, sequences that prefill and that decode."""
    table = _table("id", "plays", "enc", "pre", "dec", "KV", "")
    for each in instances:
        table.add_row(*_instance_row(frame, each))
    return table


def _instance_row(frame: Frame, instance: InstanceStatus) -> tuple[str, ...]:
    used = instance.total_kv_blocks - instance.free_kv_blocks
    planned = next((each for each in frame.plan.instances if each.id == instance.id), None)
    state = planned.state.partition(",")[0] if planned else "serving"
    arm = planned.arm if planned and frame.trial else ""
    return (
        instance.id,
        f"{instance.group}:{''.join(role[0] for role in instance.roles)}",
        str(instance.encode_running + instance.encode_waiting) if "encode" in instance.roles else "",
        str(instance.sequences_prefilling) if "prefill" in instance.roles else "",
        str(instance.sequences_decoding) if "decode" in instance.roles else "",
        _share(used, instance.total_kv_blocks),
        " ".join(word for word in (arm, "" if state == "serving" else state) if word),
    )


def percentile_table(percentiles: Iterable[Percentiles]) -> Table:
    table = _table("ms", "group", "p50", "p90", "p99", "met")
    for each in percentiles:
        values = tuple(f"{value:.0f}" for value in each.values_ms) or ("-",) * 3
        met = "-" if each.attained is None else f"{each.attained:.0%}"
        table.add_row(each.name, each.group, *values, met)
    return table


def cache_table(pools: Iterable[PoolCache]) -> Table:
    """Of all instances together."""
    sums: dict[str, Counter[str]] = {}
    for pool in pools:
        sums.setdefault(pool.pool, Counter()).update(
            used=pool.device_bytes, size=pool.device_capacity_bytes, entries=pool.entries, hits=pool.hits
        )
    table = _table("cache", "used", "entries", "hits")
    for name, total in sorted(sums.items()):
        table.add_row(name, _share(total["used"], total["size"]), str(total["entries"]), str(total["hits"]))
    return table


def decision_lines(decisions: Iterable[Decision]) -> Iterator[str]:
    """Without the numbers, which `why` has."""
    for each in decisions:
        yield f"{each.age_s:.0f} s ago {each.subject}: {each.choice}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _table(*heads: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for head in heads:
        is_number = head in ("enc", "pre", "dec", "KV", "p50", "p90", "p99", "met", "used", "entries", "hits")
        table.add_column(head, justify="right" if is_number else "left", no_wrap=True)
    return table
