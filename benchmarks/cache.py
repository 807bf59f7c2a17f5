"""The prefix cache: its cluster-wide index, and what its eviction policies save.

    python -m benchmarks.cache index [--keys 10000000] [--instances 1000] [--json FILE]
    python -m benchmarks.cache chain [--json FILE]
    python -m benchmarks.cache warmth [--instances 8 100 1000] [--json FILE]
    python -m benchmarks.cache mooncake --data FOLDER [--profile NAME] [--json FILE]
    python -m benchmarks.cache pictures --data FOLDER [--profile NAME] [--json FILE]
    python -m benchmarks.cache conversations --model FOLDER [--window N] [--topology NAME] [--json FILE]

"index" fills the index and looks prompts of 2,048 granules up; "chain" hashes one. "warmth" is what the
coordinator does for a request before its dispatch: it makes its keys, turn by turn on the event loop, and
looks up who has what of it. "mooncake" passes recorded conversations
(FOLDER/mooncake/conversation_trace.jsonl) through an instance's books in blocks of 512 tokens, "pictures"
half an hour of ServeGen's image clients (FOLDER/servegen/multimodal/mm-image). Seconds are what it takes by
the profile to compute what was found: a block's share of its prefill, a picture's encode. "conversations"
serves the same ones, with pictures, with the caches and without, in turn.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.caching.chaining import measure_chain
from benchmarks.caching.conversing import compare_talks
from benchmarks.caching.indexing import measure_dict, measure_index
from benchmarks.caching.replay import BASELINE, OURS, compare
from benchmarks.caching.talks import TalkSpec
from benchmarks.caching.traces import BLOCK_TOKENS, conversations, pictures
from benchmarks.caching.warming import measure_warmth
from benchmarks.load.report import describe_machine
from benchmarks.load.setups import parse_setup, running
from cli.devices import choose_cores, choose_devices
from cli.launch.plan import LaunchPlan
from cli.load.texts import TextMaker
from core.profile_file import load_profile

PROFILE = "h100-qwen2.5-vl-7b"
PROMPT_TOKENS = (150, 2048, 32 * 1024)
BLOCKS = (1_000, 5_000, 10_000, 30_000, 50_000)
MEBIBYTES = (256, 1024, 4096, 16384)


def run_index(options: argparse.Namespace) -> dict[str, Any]:
    found = {
        "index": asdict(measure_index(options.keys, options.instances)),
        "dict": asdict(measure_dict(options.keys, options.instances)),
    }
    table = _table("figure", "index", "dict")
    for name, value in found["index"].items():
        table.add_row(name, f"{value:,.5g}", f"{found['dict'][name]:,.5g}" if name in found["dict"] else "")
    Console(highlight=False, width=110).print(table)
    return found


def run_chain(options: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001
    found = asdict(measure_chain())
    table = _table("32k tokens", "ms")
    for name, value in found.items():
        table.add_row(name, f"{value:.3f}")
    Console(highlight=False, width=110).print(table)
    return found


def run_warmth(options: argparse.Namespace) -> dict[str, Any]:
    sizes = [(instances, tokens) for instances in options.instances for tokens in PROMPT_TOKENS]
    rows = [asdict(measure_warmth(*size)) for size in sizes]
    table = _table("instances", "prompt tokens", "keys ms", "longest turn ms", "look-up us")
    for row in rows:
        table.add_row(*(f"{value:,.4g}" for value in row.values()))
    Console(highlight=False, width=110).print(table)
    return {"rows": rows}


def run_mooncake(options: argparse.Namespace) -> dict[str, Any]:
    profile = load_profile(options.profile)
    asks = conversations(options.data / "mooncake" / "conversation_trace.jsonl", profile)
    block_bytes = BLOCK_TOKENS * profile.kv_bytes_per_token
    rows = compare(
        asks, BLOCK_TOKENS, {f"{blocks:,} blocks": blocks * block_bytes for blocks in options.blocks}
    )
    return _shown(rows, {"profile": options.profile})


def run_pictures(options: argparse.Namespace) -> dict[str, Any]:
    asks = pictures(
        options.data / "servegen" / "multimodal" / "mm-image",
        load_profile(options.profile),
        start_s=options.start_s,
        duration_s=options.duration_s,
        repeat_share=options.repeat_share,
        seed=options.seed,
    )
    rows = compare(asks, 1, {f"{size:,} MiB": size << 20 for size in options.mebibytes})
    return _shown(rows, {"profile": options.profile, "repeat_share": options.repeat_share})


def run_conversations(options: argparse.Namespace) -> dict[str, Any]:
    spec = TalkSpec(
        users=options.users, turns=options.turns, window=options.window, at_a_time=options.at_a_time
    )
    plan = LaunchPlan(
        cluster="benchmark",
        model=options.model,
        devices=choose_devices("cpu"),
        cores=choose_cores(options.cores),
        dtype="float32",
        kv_blocks=options.kv_blocks,
        log_level="WARNING",
    )
    texts = TextMaker(options.model)
    with ExitStack() as stack:
        addresses = {
            name: stack.enter_context(running(setup, plan)).address
            for name, setup in (
                ("without caches", parse_setup(f"{options.topology} prefix_cache=off")),
                ("with caches", parse_setup(options.topology)),
            )
        }
        found = compare_talks(addresses, spec, texts, rounds=options.rounds, seed=options.seed)
    table = _table("figure", *found)
    for figure in next(iter(found.values())):
        table.add_row(figure, *(_text(each[figure]) for each in found.values()))
    Console(highlight=False, width=120).print(table)
    return {"talks": asdict(spec), "topology": options.topology, "clusters": found}


def _text(figure: float | list[float]) -> str:
    if isinstance(figure, list):
        return " ".join(f"{each:,.0f}" for each in figure)
    return f"{figure:,.4g}" if isinstance(figure, float) else f"{figure:,}"


def _shown(rows: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    heads = ("capacity", f"hits % {BASELINE}", OURS, f"saved s {BASELINE}", OURS)
    table = _table(*heads, "ratio", "most s", "without cache s")
    for row in rows:
        hits, saved = row["hit_rate"], row["saved_s"]
        numbers = (100 * hits[BASELINE], 100 * hits[OURS], saved[BASELINE], saved[OURS])
        ends = (f"{row['most_s']:,.0f}", f"{row['no_cache_s']:,.0f}")
        table.add_row(row["capacity"], *(f"{each:,.1f}" for each in numbers), f"{row['ratio']:.3f}", *ends)
    Console(highlight=False, width=110).print(table)
    return settings | {"rows": rows}


def _table(*heads: str) -> Table:
    table = Table(box=box.SIMPLE)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left")
    return table


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    index = commands.add_parser("index")
    index.set_defaults(run=run_index)
    index.add_argument("--keys", type=int, default=10_000_000)
    index.add_argument("--instances", type=int, default=1000)
    chain = commands.add_parser("chain")
    chain.set_defaults(run=run_chain)
    warmth = commands.add_parser("warmth")
    warmth.set_defaults(run=run_warmth)
    warmth.add_argument("--instances", type=int, nargs="+", default=(8, 100, 1000))
    mooncake, shots = commands.add_parser("mooncake"), commands.add_parser("pictures")
    mooncake.set_defaults(run=run_mooncake)
    mooncake.add_argument("--blocks", type=int, nargs="+", default=BLOCKS)
    shots.set_defaults(run=run_pictures)
    shots.add_argument("--mebibytes", type=int, nargs="+", default=MEBIBYTES)
    shots.add_argument("--start-s", type=float, default=36_000.0)
    shots.add_argument("--duration-s", type=float, default=1_800.0)
    shots.add_argument("--repeat-share", type=float, default=0.5)
    shots.add_argument("--seed", type=int, default=1)
    talks = commands.add_parser("conversations")
    talks.set_defaults(run=run_conversations)
    talks.add_argument("--model", type=Path, required=True, help="folder of a checkpoint")
    talks.add_argument("--topology", default="coupled")
    talks.add_argument("--users", type=int, default=20)
    talks.add_argument("--turns", type=int, default=8)
    talks.add_argument("--window", type=int, help="messages of the user that a turn still sends; default all")
    talks.add_argument("--at-a-time", type=int, default=2, help="users whose turn is being answered")
    talks.add_argument("--rounds", type=int, default=3)
    talks.add_argument("--kv-blocks", type=int, default=4096, help="of 16 tokens, per instance")
    talks.add_argument("--cores", help="of the cluster, such as 0-3")
    talks.add_argument("--seed", type=int, default=0)
    for command in (mooncake, shots):
        command.add_argument("--data", type=Path, required=True, help="folder of recorded workloads")
        command.add_argument("--profile", default=PROFILE)
    for command in (index, chain, warmth, mooncake, shots, talks):
        command.add_argument("--json", type=Path, help="also write the figures there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    found = options.run(options) | {"machine": describe_machine()}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
