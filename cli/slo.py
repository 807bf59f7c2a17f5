"""elasticmm slo: how well the targets were met of late, what that took, and what caches spared."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from cli.ab.report import show_arms
from cli.connection import admin_of, endpoint_of
from cli.console import make_console
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME
from cli.status import duration

if TYPE_CHECKING:
    from rich.table import Table

    from elasticmm_client.slo import SloClass, SloReport, SloWindow


def run(
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Shows how many calls met the targets in the last minute, ten minutes and hour, and what that took.

    Per tenant, modality and class of priority. late: first token too late; slow: further ones too slow;
    unserved: no whole answer, by the cluster's fault. Calls that clients gave up or spoilt do not count.
    """
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        report = admin.slo_report()
    if as_json:
        print_json(to_json(report))
    else:
        show(report)


def to_json(report: SloReport) -> dict[str, Any]:
    """The report, with what follows from its counts beside them."""
    windows = [
        {
            **dataclasses.asdict(window),
            "classes": [
                {**dataclasses.asdict(each), "calls": each.calls, "attainment": each.attainment}
                for each in window.classes
            ],
            "instance_s_per_thousand": window.instance_s_per_thousand,
            "price_per_thousand": report.price(window.instance_s_per_thousand),
            "saved_price": report.price(window.saved_s),
        }
        for window in report.windows
    ]
    return {**dataclasses.asdict(report), "windows": windows}


def show(report: SloReport) -> None:
    console = make_console()
    console.print(targets_line(report))
    for window in report.windows:
        console.print(f"\nlast {duration(window.window_s)}: {', '.join(summary(window, report))}")
        if window.classes:
            console.print(_table(window))
    if report.trial is not None:
        show_arms(report.trial)


def targets_line(report: SloReport) -> str:
    media = f" (with media {report.multimodal_ttft_s:g})" if report.multimodal_ttft_s != report.ttft_s else ""
    return f"targets: first token in {report.ttft_s:g} s{media}, {report.tpot_s:g} s per further token"


def summary(window: SloWindow, report: SloReport) -> list[str]:
    """What was served, what it took, and what caches spared, in words."""
    words = [f"{window.requests_finished} finished"]
    if window.covered_s < window.window_s:
        words[0] += f" (watched for {duration(window.covered_s)})"
    words.append(f"{window.instance_s:.0f} instance-seconds")
    if window.instance_s_per_thousand is not None:
        price = report.price(window.instance_s_per_thousand)
        money = "" if price is None else f" (${price:.2f})"
        words[-1] += f", {window.instance_s_per_thousand:.0f}{money} per thousand requests"
    if window.prompt_tokens:
        words.append(f"{window.cached_tokens / window.prompt_tokens:.0%} of prompt tokens cached")
    price = report.price(window.saved_s)
    money = "" if price is None else f" (${price:.2f})"
    words.append(f"caches saved {window.saved_s:.1f} s{money}, {window.saved_bytes / 2**20:.0f} MiB")
    return words


def _table(window: SloWindow) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("tenant", "modality", "priority"):
        table.add_column(header)
    for header in ("calls", "met", "late", "slow", "unserved"):
        table.add_column(header, justify="right")
    for each in window.classes:
        table.add_row(*_row(each))
    return table


def _row(each: SloClass) -> tuple[str, ...]:
    counts = (str(number) for number in (each.late, each.slow, each.unserved))
    return (each.tenant, each.group, each.priority, str(each.calls), f"{each.attainment:.1%}", *counts)
