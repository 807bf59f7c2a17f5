"""A frame as rich draws it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from cli.ab.report import arm_lines, arm_table
from cli.board import narrow
from cli.board.frame import WINDOW_S, Frame
from cli.board.narrow import Fitting
from cli.percentiles import PERCENTS, Percentiles
from cli.shadow.report import lines as shadow_lines
from cli.slo import targets_line
from cli.status import duration, load
from cli.transfer_table import transfer_table
from cli.why import piece_of
from elasticmm_client.caches import PoolCache
from elasticmm_client.plan import Decision
from elasticmm_client.status import InstanceStatus

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

_BAR = 10


def draw(frame: Frame) -> Group:
    from rich.console import Group

    return Group(*_parts(frame))


def _parts(frame: Frame) -> Iterator[RenderableType]:
    from rich.text import Text

    status, plan = frame.status, frame.plan
    yield Text(
        f"{status.model} at {frame.address}, topology {status.topology}, policy {plan.policy} "
        f"(plan {plan.version}), up {duration(status.uptime_s)}"
    )
    yield Text(
        f"requests: {status.requests_waiting} waiting, {status.requests_running} running, "
        f"{status.requests_finished} finished, {status.requests_failed} failed; "
        f"{plan.transitions_done} transitions, {plan.transitions_rolled_back} rolled back"
    )
    instances = by_group(frame)
    table = _table(
        ("group", "instance", "roles", "load", "KV", "state"),
        (instance_row(frame, each) for each in instances),
        ("requests", "device", *(("arm",) if frame.trial else ())),
    )
    yield Fitting(table, narrow.instance_table(frame, instances))
    if frame.percentiles:
        heads = (f"last {WINDOW_S:g} s", "group", "requests", *(f"p{percent} ms" for percent in PERCENTS))
        table = _table(heads, map(percentile_row, frame.percentiles), ("SLO ms", "met"))
        yield Fitting(table, narrow.percentile_table(frame.percentiles))
    if rows := list(cache_rows(frame)):
        table = _table(("cache", "pool", "used", "entries", "lookups", "hits"), rows, ("saved", "pulled"))
        pools = (pool for instance in frame.cache.instances for pool in instance.pools)
        yield Fitting(table, narrow.cache_table(pools))
    if (transfers := transfer_table(status)) is not None:
        yield Fitting(transfers, Text(""))
    yield _decisions(frame.decisions)
    if frame.trial is not None:
        yield from map(Text, ("", *arm_lines(frame.trial), targets_line(frame.slo)))
        yield arm_table(frame.trial)
    if frame.shadow is not None:
        yield from map(Text, ("", *shadow_lines(frame.shadow)))
        yield _decisions(frame.shadow_decisions)


def _decisions(decisions: Sequence[Decision]) -> Fitting:
    from rich.text import Text

    full = Text("\n".join(decision_lines(decisions)))
    return Fitting(full, Text("\n".join(narrow.decision_lines(decisions))))


def by_group(frame: Frame) -> list[InstanceStatus]:
    return sorted(frame.status.instances, key=lambda each: (each.group, each.id))


def instance_row(frame: Frame, instance: InstanceStatus) -> tuple[str, ...]:
    used = instance.total_kv_blocks - instance.free_kv_blocks
    planned = next((each for each in frame.plan.instances if each.id == instance.id), None)
    arm = planned.arm if planned else ""
    return (
        instance.group,
        instance.id,
        "+".join(instance.roles),
        load(instance),
        f"{bar(used, instance.total_kv_blocks)} {used}/{instance.total_kv_blocks}",
        planned.state if planned else "serving",
        str(instance.requests),
        instance.device,
        *((arm,) if frame.trial else ()),
    )


def percentile_row(each: Percentiles) -> tuple[str, ...]:
    values = tuple(f"{value:.1f}" for value in each.values_ms) or ("-",) * len(PERCENTS)
    met = "-" if each.attained is None else f"{each.attained:.0%}"
    return (each.name, each.group, str(each.num_requests), *values, f"{each.slo_ms:g}", met)


def cache_rows(frame: Frame) -> Iterator[tuple[str, ...]]:
    for instance in frame.cache.instances:
        for pool in instance.pools:
            yield (instance.id, *_pool_cells(pool))


def _pool_cells(pool: PoolCache) -> tuple[str, ...]:
    """Hits are blocks of KV, of which one lookup may find many; a share is told of embeddings only."""
    share = f" ({pool.hits / pool.lookups:.0%})" if pool.pool == "embedding" and pool.lookups else ""
    return (
        pool.pool,
        bar(pool.device_bytes, pool.device_capacity_bytes),
        str(pool.entries),
        str(pool.lookups),
        f"{pool.hits}{share}",
        f"{pool.saved_s:.1f} s",
        str(pool.pulled),
    )


def decision_lines(decisions: Iterable[Decision]) -> Iterator[str]:
    """What was chosen, when, and what was weighed."""
    for each in decisions:
        weighed = ", ".join(f"{key} {value:.4g}" for key, value in sorted(each.numbers.items()))
        yield f"{each.age_s:7.1f} s ago  {piece_of(each)}  {each.subject}  {each.choice}  ({weighed})"


def bar(part: float, whole: float) -> str:
    """Ten characters; nothing of nothing is empty."""
    filled = min(_BAR, round(_BAR * part / whole)) if whole else 0
    return "#" * filled + "." * (_BAR - filled)


def _table(heads: Iterable[str], rows: Iterable[tuple[str, ...]], more_heads: Iterable[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False)
    for head in (*heads, *more_heads):
        table.add_column(head)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
