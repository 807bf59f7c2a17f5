"""Derives the profiles of devices that are not at hand from public figures.

    python -m profiles.derive

A step reads all weights and the KV of its context once, or is bound by its arithmetic, plus a fixed
overhead. The constants below were chosen before any result was computed with them, and hold for all.
"""

from __future__ import annotations

from core.costs import EncodeCosts, MoveCosts, StepCosts, StepTerm
from core.profile import Profile
from core.profile_file import SHIPPED, write_profile
from profiles.devices import A800, H100, Device
from profiles.models import LLAMA, QWEN, VALUE_BYTES, Model

# How much of the largest products' rate a whole prefill keeps, and of the peak a vision tower.
PREFILL_SHARE = 0.75
TOWER_EFFICIENCY = 0.40
MEMORY_EFFICIENCY = 0.80
LINK_EFFICIENCY = 0.75
STEP_FIXED_S = 2e-3
LAUNCH_S_PER_LAYER = (8.4e-3 - 5.1e-3) / 32
PREPROCESS_S_PER_PIXEL = 25e-9
MOVE_SETUP_S = 2e-3
USED_MEMORY = 0.90
ACTIVATION_BYTES = 4e9
EMBEDDING_POOL_BYTES = 2e9
BLOCK_TOKENS = 16
CHUNK_TOKENS = 2048
MAX_SEQUENCES = 256

COMMON_SOURCES = (
    "Prefill: 75% of the measured rate of large matrix products; an assumption for smaller products, "
    "element-wise kernels and gaps between them.",
    "Encode: 40% of peak for a vision tower run eagerly, an assumption. It is launched without CUDA graphs "
    "(vLLM compiles and captures the language model only): 3.3 ms for 32 layers, which is what eager mode "
    "adds to a step of Llama-3.1-8B on an H100 (8.4 against 5.1 ms, cloudai.pt on CUDA graphs).",
    "Decode: 80% of memory bandwidth; serving systems reach 60 to 85% (open-source-ai.tech on model "
    "bandwidth utilization). The place in that range is an assumption.",
    "Fixed cost of a step, 2 ms: scheduling, input preparation and sampling on the host; an assumption. "
    "vLLM's performance update of 5 September 2024 found 38% of the time of Llama 3 8B on an H100 spent on "
    "the GPU before it cut the host's share.",
    "Preprocessing on a host core, 25 ns a pixel (decode, resize, normalise): an assumption.",
    "Transfers: 75% of the link and 2 ms to set up a lease and to commit; assumptions.",
    "Memory: 90% used, as is vLLM's default, less weights, 4 GB for activations and 2 GB for embeddings; "
    "steps of at most 2048 new tokens and 256 sequences, as were vLLM's defaults with chunked prefill.",
)


def derive(name: str, device: Device, model: Model) -> Profile:
    text = model.text
    return Profile(
        name=name,
        model=model.name,
        device=device.name,
        parallelism="tp1",
        origin="derived",
        sources=device.sources + model.sources + COMMON_SOURCES,
        step=_step(device, model),
        encode=_encode(device, model),
        kv_move=_move(device),
        embedding_move=_move(device),
        media=model.media,
        kv_bytes_per_token=text.kv_bytes_per_token,
        embedding_bytes_per_token=text.hidden * VALUE_BYTES,
        kv_tokens=_kv_tokens(device, model),
        embedding_tokens=int(EMBEDDING_POOL_BYTES // (text.hidden * VALUE_BYTES)),
        block_tokens=BLOCK_TOKENS,
        chunk_tokens=CHUNK_TOKENS,
        max_sequences=MAX_SEQUENCES,
        price_per_hour=device.price_per_hour,
        cross_attention_share=text.cross_layers / text.self_layers if model.is_cross_attention else None,
    )


def _step(device: Device, model: Model) -> StepCosts:
    text = model.text
    bytes_per_s = device.memory_bytes_per_s * MEMORY_EFFICIENCY
    flops_per_s = device.flops_per_s * device.product_efficiency * PREFILL_SHARE
    pairs_per_s = device.flops_per_s * device.attention_efficiency / text.pair_flops
    kv_s = text.kv_bytes_per_token / bytes_per_s
    weights = text.token_weights + text.head_weights
    return StepCosts(
        fixed_s=STEP_FIXED_S,
        bytes=StepTerm(
            base_s=_rounded(weights * VALUE_BYTES / bytes_per_s),
            per_new_token_s=_rounded(kv_s),
            per_context_token_s=_rounded(kv_s),
        ),
        flops=StepTerm(
            per_new_token_s=_rounded(2 * text.token_weights / flops_per_s),
            per_attended_s=_rounded(1 / pairs_per_s),
            per_sequence_s=_rounded(2 * text.head_weights / flops_per_s),
        ),
    )


def _encode(device: Device, model: Model) -> EncodeCosts:
    text, tower = model.text, model.tower
    flops_per_s = device.flops_per_s * TOWER_EFFICIENCY
    cross_flops = 2 * text.cross_layers * text.kv_weights
    return EncodeCosts(
        fixed_s=_rounded(tower.layers * LAUNCH_S_PER_LAYER),
        per_token_s=_rounded((tower.flops_per_token + cross_flops) / flops_per_s),
        per_token2_s=_rounded(tower.flops_per_token2 / flops_per_s),
        per_pixel_s=PREPROCESS_S_PER_PIXEL,
    )


def _move(device: Device) -> MoveCosts:
    return MoveCosts(setup_s=MOVE_SETUP_S, bytes_per_s=device.link_bytes_per_s * LINK_EFFICIENCY)


def _kv_tokens(device: Device, model: Model) -> int:
    room = device.memory_bytes * USED_MEMORY - model.weight_bytes - ACTIVATION_BYTES - EMBEDDING_POOL_BYTES
    return int(room // (model.text.kv_bytes_per_token * BLOCK_TOKENS)) * BLOCK_TOKENS


def _rounded(value: float) -> float:
    return float(f"{value:.3e}")


def all_derived() -> tuple[Profile, ...]:
    return (
        derive("a800-qwen2.5-vl-7b", A800, QWEN),
        derive("a800-llama-3.2-vision-11b", A800, LLAMA),
        derive("h100-qwen2.5-vl-7b", H100, QWEN),
        derive("h100-llama-3.2-vision-11b", H100, LLAMA),
    )


def main() -> None:
    for profile in all_derived():
        write_profile(profile, SHIPPED / f"{profile.name}.json")
        print(SHIPPED / f"{profile.name}.json")


if __name__ == "__main__":
    main()
