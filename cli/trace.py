"""elasticmm trace: where the time of one request went."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import admin_of, endpoint_of
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME

if TYPE_CHECKING:
    from elasticmm_client.recent import RequestTrace


def run(
    request: Annotated[
        str | None, typer.Argument(metavar="REQUEST", help="Its id. Default: lists those that are kept.")
    ] = None,
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, help="List the newest so many.")
    ] = 20,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Shows a running or recently ended request from its arrival to its last token."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        found = admin.recent(limit).requests if request is None else (admin.trace(request),)
    if as_json:
        values = [to_json(each) for each in found]
        print_json({"requests": values} if request is None else values[0])
    elif request is not None:
        print("\n".join(waterfall(found[0])))
    else:
        print("\n".join(summary(each) for each in found) or "no request is kept")


def to_json(trace: RequestTrace) -> dict[str, Any]:
    """The facts, and the steps that are made of them."""
    from cli.waterfall import steps_of

    steps = [dataclasses.asdict(step) for step in steps_of(trace)]
    return {**dataclasses.asdict(trace), "tpot_ms": trace.tpot_ms, "steps": steps}


def waterfall(trace: RequestTrace) -> Iterator[str]:
    from cli.waterfall import bars

    yield summary(trace)
    if trace.error:
        yield f"failed: {trace.error}"
    if trace.num_dispatches > 1:
        yield f"dispatched {trace.num_dispatches} times; the wait shown is the last"
    yield from bars(trace)
    if trace.end_ms is None and trace.instances:
        yield f"at work: {', '.join(trace.instances)}"


def summary(trace: RequestTrace) -> str:
    """Id, state, sizes and times on one line."""
    times = (("TTFT", trace.first_token_ms), ("TPOT", trace.tpot_ms), ("total", trace.end_ms))
    return ", ".join(
        [
            f"{trace.request_id}: {trace.state}",
            f"{trace.group} of {trace.tenant}",
            f"{trace.prompt_tokens} tokens in ({trace.cached_tokens} cached, {trace.media_items} pictures)",
            f"{trace.output_tokens} out",
            *(f"{what} {value:.1f} ms" for what, value in times if value is not None),
        ]
    )
