"""From a model on a device to its profile: measures all points of the plan and fits them."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import uvloop

from core.costs import StepCosts
from core.profile import MediaRule, Profile
from kv_transfer.pool import EMBEDDING_BLOCK_TOKENS, Pool, kv_layout
from stage_servers.config import StageConfig
from stage_servers.devices import available_cores, available_memory_bytes, device_name
from stage_servers.engine.model import Model
from stage_servers.pools import kv_token_bytes, pool_sizes
from stage_servers.profiling.encodes import measure_encode, measure_preprocess
from stage_servers.profiling.fit import fit_encode, fit_move, fit_step, relative_errors
from stage_servers.profiling.moves import Receiving, measure_moves, receiving
from stage_servers.profiling.plan import DecodePoint, Plan, plan_for, pool_blocks
from stage_servers.profiling.samples import Measured, SizeSample, least_disturbed
from stage_servers.profiling.steps import StepBench
from stage_servers.profiling.timing import Stopwatch

_CPU_POOL_BYTES = 512 << 20
_CUDA_SHARE = 0.5  # of free memory: the receiving process needs some, too

OnPoint = Callable[[str], None]  # told what was measured, once a point


def make_plan(model: Model, config: StageConfig) -> Plan:
    return plan_for(model, config, _room_bytes(model) // kv_token_bytes(model))


def take_cores(config: StageConfig) -> tuple[int, ...]:
    """Computes on the cores and threads of the config; returns cores for the second process."""
    before = available_cores()
    if config.cores is not None:
        os.sched_setaffinity(0, config.cores)
    torch.set_num_threads(config.threads or len(available_cores()))
    return tuple(core for core in before if core not in available_cores()) or before


def measure(
    model: Model,
    config: StageConfig,
    plan: Plan,
    other_cores: tuple[int, ...],
    on_point: OnPoint = lambda _: None,
) -> Measured:
    """Runs the engine, the vision tower and the transfers of one instance. Takes the device for itself.

    Raises RuntimeError if the second process, which transfers go to, does not come up.
    """
    pool = _make_pool(model, config, plan)
    gc.collect()
    with receiving(model, pool, max(plan.moved_tokens), other_cores) as peer:
        watch = Stopwatch(model.device, plan.repeats, plan.point_s)
        bench = StepBench(model, pool, config.max_sequences, watch)
        bench.prepare(plan.chunk_sizes[-1] + _beside(plan).num_sequences)
        rounds = []
        for _ in range(plan.rounds):
            found = Measured()
            _measure_steps(found, bench, plan, on_point)
            _measure_pictures(found, model, watch, plan, on_point)
            _measure_moves(found, model, pool, peer, plan, on_point)
            rounds.append(found)
    pool.blocks.check_integrity()
    assert pool.blocks.num_free == pool.num_blocks, "a measurement kept blocks"
    pool.close()
    return least_disturbed(rounds)


def fit_profile(name: str, model_name: str, model: Model, config: StageConfig, found: Measured) -> Profile:
    """The profile that fits best, with its relative errors by kind of work."""
    if model.device.type == "cuda":
        torch.cuda.empty_cache()  # the measured pool is gone, but torch would keep its memory
    sizes = pool_sizes(model, config)
    step = fit_step(found.steps)
    encode = fit_encode(found.encodes, found.pixels)
    kv_move, embedding_move = fit_move(found.kv_moves), fit_move(found.embedding_moves)
    patches = model.description.patches
    token_px = patches.patch_px * patches.merge
    return Profile(
        name=name,
        model=model_name,
        device=_device(config),
        parallelism="tp1",
        origin="measured",
        sources=_sources(model_name, model, config),
        step=step,
        encode=encode,
        kv_move=kv_move,
        embedding_move=embedding_move,
        media=MediaRule("patches", token_px, patches.min_pixels, patches.max_pixels),
        kv_bytes_per_token=kv_token_bytes(model),
        embedding_bytes_per_token=model.embedding_width * model.dtype.itemsize,
        kv_tokens=sizes.kv_blocks * config.block_tokens,
        embedding_tokens=sizes.embedding_blocks * EMBEDDING_BLOCK_TOKENS,
        block_tokens=config.block_tokens,
        chunk_tokens=config.chunk_tokens,
        max_sequences=config.max_sequences,
        fit=_step_errors(step, found)
        | _size_errors("encode", lambda size: encode.encode_s(int(size)), found.encodes)
        | _size_errors("preprocess", lambda size: encode.preprocess_s(int(size)), found.pixels)
        | _size_errors("kv_move", kv_move.move_s, found.kv_moves)
        | _size_errors("embedding_move", embedding_move.move_s, found.embedding_moves),
    )


def _room_bytes(model: Model) -> int:
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        return int(free * _CUDA_SHARE)
    return min(_CPU_POOL_BYTES, available_memory_bytes() // 4)


def _make_pool(model: Model, config: StageConfig, plan: Plan) -> Pool:
    layout = kv_layout(
        model.fingerprint,
        model.dtype,
        num_layers=model.num_layers,
        num_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        block_tokens=config.block_tokens,
    )
    pool = Pool(layout, pool_blocks(plan, config.block_tokens), device=model.device)
    pool.memory.fill_(0.01)  # pages that were never written are one page, which is quick to read
    return pool


def _measure_steps(found: Measured, bench: StepBench, plan: Plan, on_point: OnPoint) -> None:
    for chunk in plan.chunk_sizes:
        found.steps.extend(bench.prefill(chunk, plan.prompt_tokens))
        on_point("prefill")
    found.steps.append(bench.packed(plan.chunk_sizes[-1]))
    on_point("prefill")
    for point in plan.decodes:
        found.steps.append(bench.decode(point))
        on_point("decode")
    beside = _beside(plan)
    for chunk in plan.chunk_sizes:
        found.steps.append(bench.mixed(beside, chunk))
        on_point("mixed steps")


def _beside(plan: Plan) -> DecodePoint:
    """The decodes that chunks run beside: a batch of middling size that leaves room."""
    fitting = [
        point
        for point in plan.decodes
        if 2 * point.num_sequences * point.context_tokens <= plan.pool_tokens and point.num_sequences <= 8
    ]
    return max(fitting, key=lambda point: (point.num_sequences, -point.context_tokens))


def _measure_pictures(found: Measured, model: Model, watch: Stopwatch, plan: Plan, on_point: OnPoint) -> None:
    for side in plan.encoded_sides:
        found.encodes.append(measure_encode(model, side, watch))
        on_point("encode")
    for side in plan.file_sides:
        found.pixels.append(measure_preprocess(model, side, watch))
        on_point("preprocess")


def _measure_moves(  # noqa: PLR0917 - what, from where, to where
    found: Measured, model: Model, pool: Pool, peer: Receiving, plan: Plan, on_point: OnPoint
) -> None:
    kv, embeddings = uvloop.run(
        measure_moves(model, pool, peer, plan.moved_tokens, lambda: on_point("transfers"))
    )
    found.kv_moves.extend(kv)
    found.embedding_moves.extend(embeddings)


def _step_errors(step: StepCosts, found: Measured) -> dict[str, float]:
    errors: dict[str, float] = {}
    for kind in ("prefill", "decode", "mixed"):
        samples = [sample for sample in found.steps if sample.kind == kind]
        predicted = [step.step_s(sample.shape) for sample in samples]
        errors |= _named(kind, relative_errors(predicted, [sample.seconds for sample in samples]))
    return errors


def _size_errors(
    name: str, predict: Callable[[float], float], samples: Sequence[SizeSample]
) -> dict[str, float]:
    predicted = [predict(sample.size) for sample in samples]
    return _named(name, relative_errors(predicted, [sample.seconds for sample in samples]))


def _named(name: str, errors: dict[str, float]) -> dict[str, float]:
    return {f"{name}_{quantile}": value for quantile, value in errors.items()}


def _device(config: StageConfig) -> str:
    if config.device != "cpu":
        return device_name(config.device, ())
    return f"{_cpu_name()}, {torch.get_num_threads()} thread(s)"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _sources(model_name: str, model: Model, config: StageConfig) -> tuple[str, ...]:
    dtype = str(model.dtype).removeprefix("torch.")
    return (
        f"Measured by elasticmm profile: {model_name}, {dtype}, attention "
        f"{model.attention_backend}, torch {torch.__version__}, {torch.get_num_threads()} thread(s) on "
        f"{len(available_cores())} core(s).",
        f"Room as a stage server takes it by default: KV and embedding pools of the {config.device} at hand.",
    )
