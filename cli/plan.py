"""elasticmm plan: what every instance plays, and what it is to play."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from cli.connection import admin_of, endpoint_of
from cli.console import make_console
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME
from cli.status import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from elasticmm_client.plan import Assignment, ClusterPlan, Pace, PastTransition, PlannedInstance

_SHOWN_PAST = 8


def run(
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Shows the wanted plan against the present one, and how far each transition is.

    Decodes, prefills and encodes: how many times the profile's time they took since the instance attached.
    """
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        plan = admin.plan()
    if as_json:
        print_json(dataclasses.asdict(plan))
    else:
        show(plan)


def show(plan: ClusterPlan) -> None:
    console = make_console()
    console.print(
        f"policy {plan.policy}, plan {plan.version}, {plan.transitions_done} transitions done, "
        f"{plan.transitions_rolled_back} rolled back"
    )
    console.print(_table(plan))
    if plan.past:
        console.print(_past_table(plan.past[-_SHOWN_PAST:]))


def _table(plan: ClusterPlan) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("id", "present", "wanted", "state"):
        table.add_column(header)
    for header in ("played for", "decodes", "prefills", "encodes"):
        table.add_column(header, justify="right")
    table.add_column("last failure")
    for instance in plan.instances:
        table.add_row(*_row(instance))
    return table


def _past_table(past: Sequence[PastTransition]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, title="last transitions", title_justify="left")
    table.add_column("ended", justify="right")
    for header in ("id", "from", "to"):
        table.add_column(header)
    for header in ("took", "of that clearing", "sequences there", "moved away"):
        table.add_column(header, justify="right")
    for each in past:
        table.add_row(*_past_row(each))
    return table


def _row(instance: PlannedInstance) -> tuple[str, ...]:
    wanted = None if instance.wanted == instance.present else instance.wanted
    pinned = " (pinned)" if instance.is_pinned else ""
    return (
        instance.id,
        in_short(instance.present),
        ("as it is" if wanted is None else in_short(wanted)) + pinned,
        instance.state + (f" (arm {instance.arm})" if instance.arm else ""),
        duration(instance.since_s),
        _times(instance.decodes),
        _times(instance.prefills),
        _times(instance.encodes),
        instance.last_failure,
    )


def _past_row(past: PastTransition) -> tuple[str, ...]:
    return (
        f"{duration(past.age_s)} ago",
        past.instance_id,
        in_short(past.before),
        in_short(past.after) if past.is_done else f"{in_short(past.after)} (rolled back)",
        f"{past.took_s * 1e3:.0f} ms",
        f"{past.clearing_s * 1e3:.0f} ms",
        str(past.num_resident),
        f"{past.num_moved} ({past.size_bytes / 2**20:.1f} MiB)" if past.num_moved else "0",
    )


def in_short(assignment: Assignment) -> str:
    """ "text:pd", as 'why' and the logs have it and 'pin' takes it."""
    return f"{assignment.group}:{''.join(role[0] for role in assignment.roles)}"


def _times(pace: Pace) -> str:
    return "" if pace.factor is None else f"{pace.factor:.2f}x"
