from __future__ import annotations

from io import StringIO

from rich.console import Console

from benchmarks.simulator import SETS, first_profile, measure, table
from simulator.workload.mix import MixSpec, mix


def test_every_set_is_measured_and_shown() -> None:
    requests = mix(MixSpec(duration_s=3.0, output_tokens=8), 8.0, 1)
    rows = [{"workload": "mix"} | measure(each, first_profile(), requests, 1) for each in SETS]
    assert all(row["events"] > 5 * len(requests) for row in rows)
    assert all(0 < row["policy_share"] < 1 for row in rows)
    out = StringIO()
    Console(file=out, width=200).print(table(rows))
    assert all(each in out.getvalue() for each in SETS)
