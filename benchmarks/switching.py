"""Role switches under load: requests that fail, tokens that differ, and the time that a switch takes.

    python -m benchmarks.switching [--model M] [--switches 200] [--instances 4] [--streams 4] [--json FILE]

One cluster in float32. Every question is first asked alone; then several streams ask them over and over while
instances are pinned to other stages and groups, one after the other, until so many transitions are done. The
pins are drawn so that all pairs of role sets come up. Times are those that the coordinator saw: from its
decision until the instance takes work as what it is now.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.elasticity.answers import Reference, Tally, reference_of
from benchmarks.elasticity.pins import ALL_GROUP_PAIRS, ALL_PAIRS, PinChooser
from benchmarks.elasticity.streams import Answer, Question, Streams, make_questions
from benchmarks.load.report import describe_machine
from benchmarks.load.setups import Setup, running
from cli.devices import choose_cores
from cli.launch.events import LaunchError
from cli.launch.plan import LaunchPlan
from cli.load.outcomes import quantiles
from cli.model_folder import model_folder
from elasticmm_client import AdminClient, Client, InvalidRequest
from elasticmm_client.plan import ClusterPlan, PastTransition

TARGET_MEDIAN_MS = 150.0  # of switches with nothing resident
_SETTLE_S = 60.0
_LOOK_S = 0.002


class Switcher:
    """Pins one instance after the other and keeps the record of every transition."""

    def __init__(self, admin: AdminClient, chooser: PinChooser, pause_s: float) -> None:
        self._admin = admin
        self._pause_s = pause_s
        self._chooser = chooser
        self.past: dict[int, PastTransition] = {}
        self.num_refused = 0

    def run(self, num_switches: int) -> ClusterPlan:
        """Returns the plan at the end. Raises RuntimeError where a transition does not settle."""
        plan = self._settled()
        while plan.transitions_done < num_switches:
            time.sleep(self._pause_s)
            self._pin_one(plan)
            plan = self._settled()
        return plan

    def _pin_one(self, plan: ClusterPlan) -> None:
        """The first pin that leaves no group without a stage."""
        for instance_id, wanted in self._chooser.candidates(plan.instances):
            try:
                self._admin.pin(instance_id, wanted.roles, wanted.group)
                return
            except InvalidRequest as error:
                if "nobody would play" not in str(error):
                    raise
                self.num_refused += 1
        raise RuntimeError("no instance may change")

    def _settled(self) -> ClusterPlan:
        end_s = time.monotonic() + _SETTLE_S
        while True:
            plan = self._admin.plan()
            self._note(plan)
            if all(each.state == "serving" for each in plan.instances):
                return plan
            if time.monotonic() > end_s:
                raise RuntimeError(f"still {[each.state for each in plan.instances]} after {_SETTLE_S:g} s")
            time.sleep(_LOOK_S)

    def _note(self, plan: ClusterPlan) -> None:
        for past in plan.past:
            if past.number not in self.past and past.is_done:
                self._chooser.note(past.before, past.after)
            self.past[past.number] = past


def references(client: Client, questions: Sequence[Question], max_tokens: int) -> list[Reference]:
    """Every question alone, one after the other."""
    return [
        reference_of(
            client.generate(
                each.messages, max_tokens=max_tokens, ignore_eos=True, logprobs=2, temperature=0.0
            ).result()
        )
        for each in questions
    ]


def compare(answers: Sequence[Answer], undisturbed: Sequence[Reference]) -> Tally:
    tally = Tally()
    for answer in answers:
        if answer.result is not None:
            tally.compare(undisturbed[answer.index], answer.result.token_ids)
    return tally


def times_of(past: Sequence[PastTransition]) -> dict[str, dict[str, Any]]:
    """Apart by what lay on the instance."""
    kinds = {
        "nothing resident": [each for each in past if not each.num_resident],
        "resident, ended in place": [each for each in past if each.num_resident and not each.num_moved],
        "resident, moved first": [each for each in past if each.num_moved],
    }
    return {name: _figures(each) for name, each in kinds.items() if each}


def _figures(past: Sequence[PastTransition]) -> dict[str, Any]:
    times_ms = [each.took_s * 1e3 for each in past]
    return {
        "switches": len(past),
        "took_ms": quantiles(times_ms) | {"max": max(times_ms)},
        "clearing_ms": quantiles(each.clearing_s * 1e3 for each in past),
        "moved": sum(each.num_moved for each in past),
        "moved_bytes": sum(each.size_bytes for each in past),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    model = model_folder(args.model)
    plan = LaunchPlan(
        cluster="benchmark",
        model=model,
        cores=choose_cores(args.cores),
        dtype="float32",
        threads=1,
        kv_blocks=args.kv_blocks,
        log_level="WARNING",
    )
    setup = Setup("coupled", "coupled", (("num_instances", args.instances),))
    questions = make_questions(model, args.questions, args.seed)
    with (
        running(setup, plan) as endpoint,
        Client(endpoint.address) as client,
        AdminClient(endpoint.address, endpoint.token) as admin,
    ):
        undisturbed = references(client, questions, args.tokens)
        switcher = Switcher(admin, chooser := PinChooser(args.seed), args.pause_ms / 1e3)
        streams = Streams(client, questions, args.streams, args.tokens)
        start_s = time.monotonic()
        try:
            last = switcher.run(args.switches)
        finally:
            duration_s = time.monotonic() - start_s
            answers = streams.end()
    tally = compare(answers, undisturbed)
    failed = [each.error for each in answers if each.result is None]
    return {
        "duration_s": duration_s,
        "switches": {
            "done": last.transitions_done,
            "rolled_back": last.transitions_rolled_back,
            "refused_pins": switcher.num_refused,
            "role_set_pairs": f"{len(chooser.pairs)} of {len(ALL_PAIRS)}",
            "group_pairs": f"{len(chooser.group_pairs)} of {len(ALL_GROUP_PAIRS)}",
        },
        "requests": {"answered": len(answers) - len(failed), "failed": len(failed), "errors": failed[:5]},
        "tokens": {
            "compared": tally.num_tokens,
            "near_ties": tally.num_ties,
            "left_out_after_ties": tally.num_left_out,
            "wrong_answers": tally.num_wrong,
            "is_exact": tally.is_exact,
        },
        "times": times_of(list(switcher.past.values())),
    }


def build_table(report: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("switches with")
    for header in ("number", "p50 ms", "p90 ms", "max ms", "clearing p50 ms", "moved", "MiB moved"):
        table.add_column(header, justify="right")
    for name, each in report["times"].items():
        took = each["took_ms"]
        cells = (took["p50"], took["p90"], took["max"], each["clearing_ms"]["p50"])
        table.add_row(
            name,
            str(each["switches"]),
            *(f"{cell:.1f}" for cell in cells),
            str(each["moved"]),
            f"{each['moved_bytes'] / 2**20:.1f}",
        )
    return table


def is_good(report: Mapping[str, Any]) -> bool:
    """Nothing failed, nothing differs, nothing was rolled back."""
    return (
        not report["requests"]["failed"]
        and report["tokens"]["is_exact"]
        and not report["switches"]["rolled_back"]
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.switching",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, help="folder; default: the demo model")
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--streams", type=int, default=4, help="questions at a time")
    parser.add_argument("--questions", type=int, default=9, help="different ones")
    parser.add_argument("--tokens", type=int, default=128, help="of every answer")
    parser.add_argument("--pause-ms", type=float, default=100.0, help="from one switch to the next")
    parser.add_argument("--kv-blocks", type=int, default=400, help="of every instance")
    parser.add_argument("--cores", help="of the instances, such as 0-3")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        report = measure(args)
    except (ValueError, LaunchError, RuntimeError) as error:
        print(f"benchmarks.switching: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    console = Console(width=None if sys.stdout.isatty() else 160)
    for part in ("switches", "requests", "tokens"):
        console.print(f"{part}: " + ", ".join(f"{key} {value}" for key, value in report[part].items()))
    console.print(build_table(report))
    if args.json is not None:
        command = shlex.join(["python", "-m", "benchmarks.switching", *sys.argv[1:]])
        about = {"command": command, "machine": describe_machine(), "to_reach_median_ms": TARGET_MEDIAN_MS}
        args.json.write_text(json.dumps(about | report, indent=2) + "\n")
    return 0 if is_good(report) else 1


if __name__ == "__main__":
    sys.exit(main())
