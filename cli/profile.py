"""elasticmm profile: measures what a model costs on the device at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.exits import FAILED, USAGE, fail, print_json
from cli.options import (
    AttentionOption,
    ChunkTokensOption,
    CoresOption,
    DeviceOption,
    DtypeOption,
    EmbeddingBlocksOption,
    JsonOption,
    KvBlocksOption,
    ModelNameOption,
    ModelOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from rich.table import Table

    from core.profile import Profile
    from stage_servers.config import StageConfig


def run(
    *,
    model: ModelOption = None,
    model_name: ModelNameOption = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the profile here, as JSON.")
    ] = None,
    profile_name: Annotated[
        str, typer.Option("--profile-name", metavar="NAME", help="Default: that of FILE, else of the model.")
    ] = "",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attention: AttentionOption = "auto",
    cores: CoresOption = None,
    threads: ThreadsOption = None,
    kv_blocks: KvBlocksOption = None,
    embedding_blocks: EmbeddingBlocksOption = None,
    chunk_tokens: ChunkTokensOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measures encode, prefill, decode and transfer costs, and fits a profile to them.

    Takes a minute or two, and wants the device to itself: what else runs there is measured, too.
    """
    from cli.devices import choose_cores, choose_device
    from cli.model_folder import model_folder, served_name
    from stage_servers.config import StageConfig

    optional = {
        "threads": threads,
        "kv_blocks": kv_blocks,
        "embedding_blocks": embedding_blocks,
        "chunk_tokens": chunk_tokens,
    }
    try:
        config = StageConfig(
            model=model_folder(model),
            coordinator="",
            token="profile",
            device=choose_device(device),
            dtype=dtype,
            attention=attention,
            cores=choose_cores(cores) if cores else None,
            **{key: value for key, value in optional.items() if value is not None},  # type: ignore[arg-type]
        )
    except ValueError as error:
        fail(str(error), USAGE)
    if config.emulated is not None:
        fail(f"device: {device!r} takes its time from a profile, there is nothing to measure", USAGE)
    if out is not None and not out.parent.is_dir():
        fail(f"out: {out.parent} is no folder", USAGE)
    model_name = served_name(model, model_name) or config.model.name
    profile = _measure(config, profile_name or (out.stem if out is not None else model_name), model_name)
    _show(profile, out, as_json=as_json)


def _measure(config: StageConfig, name: str, model_name: str) -> Profile:
    """Exits 1 with the reason if the model cannot be loaded or measured."""
    import os

    from cli.compute_environment import compute_environment

    os.environ.update(compute_environment())
    from stage_servers.engine.loader import load_model
    from stage_servers.profiling.profiler import fit_profile, make_plan, measure, take_cores

    other_cores = take_cores(config)
    try:
        model = load_model(config.model, dtype=config.dtype, device=config.device, attention=config.attention)
        plan = make_plan(model, config)
        with _progress(plan.num_points) as on_point:
            found = measure(model, config, plan, other_cores, on_point)
        profile = fit_profile(name, model_name, model, config, found)
        model.close()
    except (ValueError, OSError, RuntimeError) as error:
        fail(str(error), FAILED)
    return profile


@contextmanager
def _progress(num_points: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr; it leaves nothing behind, and shows nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("prefill", total=num_points)
        yield lambda kind: bar.update(task, advance=1, description=kind)


def _show(profile: Profile, out: Path | None, *, as_json: bool) -> None:
    from core.profile_file import write_profile
    from core.record import encode

    if out is not None:
        try:
            write_profile(profile, out)
        except OSError as error:
            fail(f"out: {out} cannot be written ({error.strerror})", FAILED)
    if as_json:
        print_json(encode(profile))
        return
    from rich.console import Console

    console = Console()
    console.print(f"{profile.model} on {profile.device}", highlight=False)
    console.print(_table(profile))
    if out is not None:
        console.print(f"written to {out}", highlight=False, soft_wrap=True)


def _table(profile: Profile) -> Table:
    """Some telling costs, and how far the fit is from what was measured."""
    from rich.table import Table

    table = Table("work", "takes", "median error", "p90 error", box=None, pad_edge=False)
    for kind, takes in _examples(profile):
        errors = [profile.fit.get(f"{kind}_{quantile}") for quantile in ("median", "p90")]
        shown = ["-" if error is None else f"{100 * error:.1f}%" for error in errors]
        table.add_row(kind.replace("_", " "), takes, *shown)
    return table


def _examples(profile: Profile) -> Iterator[tuple[str, str]]:
    from core.costs import chunk_shape, decode_shape

    step, chunk, batch = profile.step, profile.chunk_tokens, min(8, profile.max_sequences)
    beside = decode_shape(batch, 512 * batch).plus(chunk_shape(chunk))
    side = int(profile.media.max_pixels**0.5)
    tokens = profile.media.media_tokens(side, side)
    kv_bytes, embedding_bytes = 512 * profile.kv_bytes_per_token, tokens * profile.embedding_bytes_per_token
    yield "prefill", f"{chunk} tokens in {_ms(step.prefill_s(chunk, chunk))}"
    yield "decode", f"{batch} sequences of 512 tokens in {_ms(step.decode_step_s(batch, 512 * batch))}"
    yield "mixed", f"both in {_ms(step.step_s(beside))}"
    yield "encode", f"{tokens} tokens in {_ms(profile.encode.encode_s(tokens))}"
    yield "preprocess", f"1 megapixel in {_ms(profile.encode.preprocess_s(1_000_000))}"
    yield "kv_move", f"512 tokens in {_ms(profile.kv_move.move_s(kv_bytes))}"
    yield "embedding_move", f"{tokens} tokens in {_ms(profile.embedding_move.move_s(embedding_bytes))}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"
