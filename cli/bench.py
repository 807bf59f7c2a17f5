"""elasticmm bench: load on a running cluster, and what it made of it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import endpoint_of
from cli.exits import FAILED, INTERRUPTED, USAGE, fail, failures, print_json
from cli.load import DoorName
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption
from cli.state import DEFAULT_NAME

if TYPE_CHECKING:
    from cli.endpoint import Endpoint
    from cli.load.outcomes import Outcome, Targets
    from cli.load.sending import OnOutcome
    from cli.load.workload import PlannedRequest


def run(
    *,
    rate: Annotated[
        float | None, typer.Option(metavar="X", help="Requests per second, at random moments (Poisson).")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Requests at a time, where there is no --rate. Default: 8."),
    ] = None,
    requests: Annotated[int, typer.Option(metavar="N", min=1, help="How many are sent.")] = 64,
    prompt_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of each text.")] = 128,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Tokens of each answer, no more and no less.")
    ] = 64,
    pictures: Annotated[int, typer.Option(metavar="N", min=0, help="Pictures of each request.")] = 0,
    picture_size: Annotated[str, typer.Option(metavar="WxH", help="Of each picture, in pixels.")] = "448x448",
    door: Annotated[DoorName, typer.Option(help="Which API is asked.")] = "grpc",
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Of the HTTP door. Default: of the cluster that 'up' started, else port 8000."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of texts, pictures and moments.")] = 0,
    slo_ttft_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Goodput counts requests whose first token came within."),
    ] = None,
    slo_tpot_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Goodput counts requests whose further tokens took, on average."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds that one request may take.")
    ] = 600.0,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Its tokenizer counts the tokens of texts. Default: that of the cluster that 'up' started.",
        ),
    ] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
) -> None:
    """Sends requests and prints latencies, throughput, goodput, cached tokens and errors.

    Ctrl-C prints what there is by then.
    """
    from cli.load.outcomes import Targets, summarize
    from cli.load.workload import WorkloadSpec, plan_requests

    if rate is not None and concurrency is not None:
        fail("--rate and --concurrency exclude each other", USAGE)
    places = concurrency or 8
    endpoint = endpoint_of(name, state_dir, address, as_json=as_json)
    try:
        spec = WorkloadSpec(
            num_requests=requests,
            input_tokens=prompt_tokens,
            output_tokens=max_tokens,
            image_share=1.0 if pictures else 0.0,
            images_per_request=max(1, pictures),
            image_size=_size_of(picture_size),
            rate=rate,
            concurrency=places,
        )
        planned = plan_requests(spec, _text_maker(model or endpoint.model), seed)
    except ValueError as error:
        fail(str(error), USAGE)
    outcomes: list[Outcome] = []
    is_whole = False
    try:
        with failures(as_json=as_json):
            _drive(
                door=door,
                url=url,
                endpoint=endpoint,
                planned=planned,
                places=places,
                timeout_s=timeout,
                outcomes=outcomes,
            )
        is_whole = True
    except KeyboardInterrupt:
        if not outcomes:
            raise typer.Exit(INTERRUPTED) from None
    targets = Targets(slo_ttft_ms, slo_tpot_ms)
    summary = summarize(outcomes, targets)
    _print(summary, targets, as_json=as_json)
    if not is_whole:
        raise typer.Exit(INTERRUPTED)
    if summary["failed"] == summary["requests"]:
        raise typer.Exit(FAILED)


def _drive(
    *,
    door: DoorName,
    url: str | None,
    endpoint: Endpoint,
    planned: list[PlannedRequest],
    places: int,
    timeout_s: float,
    outcomes: list[Outcome],
) -> None:
    """Fills `outcomes` as they come. Raises ElasticMMError where the cluster cannot be reached at all."""
    from rich.console import Console

    from cli.load.doors import open_door
    from cli.load.live import progress_bar
    from cli.load.sending import send_all

    async def send(show: OnOutcome) -> None:
        def on_outcome(outcome: Outcome) -> None:
            outcomes.append(outcome)
            show(outcome)

        async with open_door(door, endpoint, url, timeout_s) as asker:
            await asker.connect()
            await send_all(asker, planned, places, time.monotonic(), on_outcome)

    with progress_bar(Console(stderr=True), door, len(planned)) as show:
        asyncio.run(send(show))


def _size_of(text: str) -> tuple[int, int]:
    from cli.load.pictures import parse_size

    return parse_size(text)


def _text_maker(model: Path | None) -> Any:
    from cli.load.texts import TextMaker
    from cli.model_folder import model_folder

    folder = model_folder(model)
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"model: {folder} has no tokenizer.json, which counts the tokens of texts")
    return TextMaker(folder)


def _print(summary: dict[str, Any], targets: Targets, *, as_json: bool) -> None:
    from cli.console import make_console
    from cli.load.tables import counts_table, times_table

    if as_json:
        print_json(summary)
        return
    console = make_console()
    console.print(times_table(summary))
    console.print(counts_table(summary, targets.words))
