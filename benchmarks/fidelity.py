"""How true the simulator is: one trace simulated and on a live cluster, side by side.

    python -m benchmarks.fidelity emulated --model M [--policy emp]… [--json FILE]
    python -m benchmarks.fidelity computed --profile FILE [--model M] [--json FILE]

"emulated": eight devices that take a profile's time, with all the rest of the cluster real; to reach: median
TTFT and TPOT within 10%, goodput within 5%. "computed": two instances that compute, against the profile that
`elasticmm profile` measured; to reach: within 20%, the TTFT of each kind by itself, for the median of a mix
of quick and slow requests is a tail of the quick ones. A shared processor is not as fast as when it was
profiled: there the simulated devices keep the pace of the live ones in that run, one factor each for steps
with prompts, steps without, and encodes; what the profile alone gives stands beside it.

The simulator gets the prompts as long as the live cluster counted them, and what the host adds to a lone
request and to each of its steps (client, coordinator, messages), and of emulated devices to one with pictures
(upload, fetching, hand-over), measured on the few requests before the trace: no device's profile has that.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.elasticity.options import COMPUTED, EMULATED, POLICIES, add_options, make_stage, trace_spec
from benchmarks.elasticity.playing import Played, Stage, actors_of, play
from benchmarks.elasticity.simulating import (
    AS_PROFILED,
    as_sent,
    check_pictures,
    host_costs,
    simulate,
    with_pictures,
)
from benchmarks.elasticity.trace import make_trace
from benchmarks.load.report import describe_machine, flatten
from cli.launch.events import LaunchError
from cli.load.outcomes import Targets, summarize
from cli.targets import parse_slo
from simulator.workload.request import Request

# Relative differences to stay under.
TARGETS = {
    EMULATED: {"ttft_ms.p50": 0.10, "tpot_ms.p50": 0.10, "goodput_per_s": 0.05},
    COMPUTED: {
        "text.ttft_ms.p50": 0.20,
        "image.ttft_ms.p50": 0.20,
        "tpot_ms.p50": 0.20,
        "goodput_per_s": 0.20,
    },
}
_MORE = (
    "text.ttft_ms.p90",
    "image.ttft_ms.p90",
    "tpot_ms.p90",
    "good_share",
    "failed",
)
_COMPARED = (
    "ttft_ms.p50",
    "text.ttft_ms.p50",
    "image.ttft_ms.p50",
    "tpot_ms.p50",
    "goodput_per_s",
    *_MORE,
)


def difference(live: float, simulated: float) -> float:
    """Relative to the live one; 0 where both are 0."""
    if live == simulated:
        return 0.0
    return (simulated - live) / live if live else float("inf")


def compare(args: argparse.Namespace, stage: Stage, policy: str) -> dict[str, Any]:
    """One policy set on both sides. Raises LaunchError."""
    if stage.profile is None:
        raise ValueError("profile: name the one that was measured here")
    ttft_s, tpot_s, _ = parse_slo(args.slo)
    targets, trace = Targets(ttft_s * 1e3, tpot_s * 1e3), make_trace(trace_spec(args), args.seed)
    played = play(stage, actors_of(policy), trace, args.seed)
    check_pictures(stage, trace, played.outcomes)
    found: dict[str, Any] = {
        "pace": asdict(played.pace),
        "instances_first": played.instances_first,
        "cores_busy": {kind: seconds / played.wall_s for kind, seconds in played.cpu_s.items()},
        "live": summarize(played.outcomes, targets) | {"switches": played.num_switches},
    }
    sent = as_sent(trace, played.outcomes)
    if args.case == COMPUTED:
        found["by_profile"] = _simulated(args.case, stage, played, sent, targets)["simulated"]
    found |= _simulated(args.case, stage, played, sent, targets, is_paced=args.case == COMPUTED)
    flat_live, flat_ours = flatten(found["live"]), flatten(found["simulated"])
    keys = [key for key in _COMPARED if key in flat_live and key in flat_ours]
    return found | {"difference": {key: difference(flat_live[key], flat_ours[key]) for key in keys}}


def _simulated(
    case: str,
    stage: Stage,
    played: Played,
    trace: Sequence[Request],
    targets: Targets,
    *,
    is_paced: bool = False,
) -> dict[str, Any]:
    """The simulator's side, on devices as fast as the live ones were or as the profile says."""
    paces = (played.warm_up_pace, played.pace) if is_paced else (AS_PROFILED, AS_PROFILED)
    host = host_costs(stage, played.warm_up, paces[0])
    if case == EMULATED:
        host = with_pictures(host, stage, played.policy, trace, played.warm_up)
    simulated = simulate(stage, played.policy, trace, host, paces[1])
    return {
        "host_ms": host.request_s * 1e3,
        "host_step_ms": host.step_s * 1e3,
        "host_pictures_ms": host.pictures_s * 1e3,
        "simulated": summarize(simulated.outcomes, targets) | {"switches": simulated.num_switches},
    }


def misses(case: str, compared: Mapping[str, Any]) -> list[str]:
    """Figures that are further apart than they should be."""
    differences = compared["difference"]
    return [
        f"{key} {differences[key]:+.1%}" if key in differences else f"{key} is missing"
        for key, most in TARGETS[case].items()
        if abs(differences.get(key, math.inf)) > most
    ]


def build_table(case: str, compared: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("policy", "figure"):
        table.add_column(header)
    for header in ("live", "simulated", "difference", "to reach", "by the profile alone"):
        table.add_column(header, justify="right")
    for policy, each in compared.items():
        live, simulated = flatten(each["live"]), flatten(each["simulated"])
        by_profile = flatten(each.get("by_profile", {}))
        for key, apart in each["difference"].items():
            most = TARGETS[case].get(key)
            table.add_row(
                policy,
                key,
                f"{live[key]:.4g}",
                f"{simulated[key]:.4g}",
                f"{apart:+.1%}",
                "" if most is None else f"{most:.0%}",
                f"{by_profile[key]:.4g}" if key in by_profile else "",
            )
        rows = [
            (f"{kind}: times the profile's seconds", f"{factor:.2f}") for kind, factor in each["pace"].items()
        ]
        rows += [
            ("ms added by the host to a lone request", f"{each['host_ms']:.1f}"),
            ("ms added by the host to its steps", f"{each['host_step_ms']:.1f}"),
            ("ms added by the host where there are pictures", f"{each['host_pictures_ms']:.1f}"),
        ]
        for row in rows:
            table.add_row(policy, *row)
        table.add_row(policy, "switches", *(f"{side['switches']:.0f}" for side in (live, simulated)))
    return table


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    return parser.parse_args(words)


def main() -> int:
    args = parse_args()
    console = Console(stderr=True)
    compared: dict[str, dict[str, Any]] = {}
    try:
        for policy in args.policy or POLICIES:
            with console.status(policy), tempfile.TemporaryDirectory(prefix="elasticmm-") as folder:
                compared[policy] = compare(args, make_stage(args, Path(folder)), policy)
    except (ValueError, LaunchError, RuntimeError) as error:
        print(f"benchmarks.fidelity: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    Console(width=None if sys.stdout.isatty() else 160).print(build_table(args.case, compared))
    if args.json is not None:
        about = {
            "command": shlex.join(["python", "-m", "benchmarks.fidelity", *sys.argv[1:]]),
            "machine": describe_machine(),
            "trace": asdict(trace_spec(args)),
        }
        args.json.write_text(json.dumps(about | {"policies": compared}, indent=2) + "\n")
    missed = {policy: found for policy, each in compared.items() if (found := misses(args.case, each))}
    for policy, found in missed.items():
        print(f"{policy}: apart by more than wanted: {', '.join(found)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
