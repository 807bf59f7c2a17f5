"""A shadow's report in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cli.exits import print_json
from cli.status import duration

if TYPE_CHECKING:
    from elasticmm_client.shadow import ShadowReport


def show(report: ShadowReport, *, as_json: bool) -> None:
    if as_json:
        print_json({**dataclasses.asdict(report), "differing_share": report.differing_share})
    else:
        print("\n".join(lines(report)))


def lines(report: ShadowReport) -> Iterator[str]:
    yield f"{report.policy}, in the shadow for {duration(report.watched_s)}"
    if report.failure:
        yield f"stopped: {report.failure}"
    yield from _dispatches(report)
    if report.acting_first_s is not None and report.shadow_first_s is not None:
        yield (
            f"first token predicted in {report.acting_first_s:.3f} s by the acting set, "
            f"{report.shadow_first_s:.3f} s by the shadow (mean of {report.predicted})"
        )
    yield (
        f"plans changed what an instance is to play {report.acting_changes} times, "
        f"the shadow's would have {report.shadow_changes} times"
    )
    for name, (acting, shadow) in report.wanted.items():
        yield f"  {name}: {acting}, the shadow wants {shadow}"
    yield f"it took {report.spent_s:.3f} s of the coordinator's time"


def _dispatches(report: ShadowReport) -> Iterator[str]:
    skipped = f", {report.skipped} not compared for want of time" if report.skipped else ""
    if report.differing_share is None:
        yield f"no dispatch compared{skipped}"
        return
    yield (
        f"{report.differing_share:.1%} of {report.compared} dispatches differ: {report.elsewhere} would go "
        f"elsewhere, {report.held} would wait{skipped}"
    )
    if report.elsewhere:
        counts = {
            "encode": report.other_encode,
            "prefill": report.other_prefill,
            "decode": report.other_decode,
        }
        yield "  another instance for: " + ", ".join(f"{stage} {n}" for stage, n in counts.items() if n)
