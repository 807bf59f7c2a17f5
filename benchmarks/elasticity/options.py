"""Where traces are played and what they are: two cases, and options that change them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.elasticity.emulated import with_emulated
from benchmarks.elasticity.playing import Stage
from benchmarks.elasticity.trace import TraceSpec
from cli.devices import choose_cores
from cli.launch.plan import LaunchPlan
from cli.model_folder import model_folder
from cli.targets import parse_slo

EMULATED, COMPUTED = "emulated", "computed"
POLICIES = ("coupled", "replicas", "static:equal", "emp")
_PROFILE = "a800-qwen2.5-vl-7b"

# Few requests of much device time each, so that two cores can carry the control plane of eight devices.
_EMULATED_TRACE = TraceSpec(
    duration_s=40.0,
    text_rate=10.0,
    image_rate=2.5,
    burst_start_s=12.0,
    burst_s=12.0,
    burst_factor=5.0,
    text_tokens=2000,
    image_text_tokens=64,
    picture_px=(1288, 728),
    pictures=2,
    output_tokens=24,
)
_COMPUTED_TRACE = TraceSpec(
    duration_s=30.0,
    text_rate=1.5,
    image_rate=0.5,
    burst_start_s=8.0,
    burst_s=10.0,
    burst_factor=4.0,
    text_tokens=120,
    image_text_tokens=24,
    picture_px=(448, 448),
    output_tokens=24,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "case", choices=(EMULATED, COMPUTED), help="8 emulated devices, or this machine's cores"
    )
    parser.add_argument("--model", type=Path, help="folder; default: the demo model")
    parser.add_argument("--profile", help=f"of costs, a name or a file; default of emulated: {_PROFILE}")
    parser.add_argument("--instances", type=int, help="default: 8 emulated, 2 computed")
    parser.add_argument("--time-scale", type=float, default=1.0, help="devices and trace X times slower")
    parser.add_argument("--policy", action="append", help=f"repeatable; default: {', '.join(POLICIES)}")
    parser.add_argument("--slo", default="1,0.05", help="targets of all requests, TTFT,TPOT in seconds")
    parser.add_argument("--duration", type=float, help="seconds of the trace; the burst moves with it")
    parser.add_argument("--text-rate", type=float)
    parser.add_argument("--image-rate", type=float)
    parser.add_argument("--burst-factor", type=float)
    parser.add_argument("--output-tokens", type=int)
    parser.add_argument("--cores", help="of computing instances, such as 0-3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")


def trace_spec(args: argparse.Namespace) -> TraceSpec:
    """Raises ValueError naming the option."""
    spec = _EMULATED_TRACE if args.case == EMULATED else _COMPUTED_TRACE
    names = ("text_rate", "image_rate", "burst_factor", "output_tokens")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if args.duration is not None:
        by = args.duration / spec.duration_s
        given |= {
            "duration_s": args.duration,
            "burst_start_s": spec.burst_start_s * by,
            "burst_s": spec.burst_s * by,
        }
    return replace(spec, **given)


def make_stage(args: argparse.Namespace, folder: Path) -> Stage:
    """`folder` is for a slowed profile. Raises ValueError naming the option."""
    is_emulated = args.case == EMULATED
    if not is_emulated and args.time_scale != 1:
        raise ValueError("time-scale: only emulated devices have one")
    targets = [each * args.time_scale for each in parse_slo(args.slo) if each is not None]
    plan = LaunchPlan(
        cluster="benchmark",
        model=model_folder(args.model),
        cores=choose_cores(args.cores),
        profile=args.profile,
        slo=",".join(map(str, targets)),
        log_level="WARNING",
    )
    if not is_emulated:
        return Stage(plan, "coupled", args.instances or 2, args.profile)
    profile = args.profile or _PROFILE
    plan = with_emulated(plan, profile, args.time_scale, folder)
    return Stage(plan, "coupled", args.instances or 8, profile, args.time_scale)
