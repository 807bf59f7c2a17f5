"""What the vendors' data sheets promise of devices, and how much of it published measurements reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator; data-sheet figures first, then efficiencies between 0 and 1."""

    name: str
    flops_per_s: float  # bfloat16, dense
    memory_bytes: float
    memory_bytes_per_s: float
    link_bytes_per_s: float  # to another device of the host, one direction
    price_per_hour: float
    product_efficiency: float  # of the largest matrix products
    attention_efficiency: float  # of fused attention over whole prompts
    sources: tuple[str, ...]


A800 = Device(
    name="NVIDIA A800 80GB SXM",
    flops_per_s=312e12,
    memory_bytes=80e9,
    memory_bytes_per_s=2039e9,
    link_bytes_per_s=200e9,
    price_per_hour=1.79,
    product_efficiency=267.9 / 312,
    attention_efficiency=0.55,
    sources=(
        "Device: NVIDIA A100 80GB SXM data sheet (nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf): "
        "312 TFLOPS bfloat16 dense, 80 GB HBM2e at 2,039 GB/s. The A800 differs from it in NVLink alone: "
        "400 GB/s instead of 600 GB/s, both directions together, so 200 GB/s in one (NVIDIA's statement to "
        "Reuters, 7 November 2022).",
        "Matrix products: 267.9 TFLOPS measured on an A100 SXM (github.com/mag-/gpu_benchmark, after the "
        "maximum achievable matmul FLOPS of github.com/stas00/ml-engineering).",
        "Attention: 55% of peak; FlashAttention-2 (arXiv 2307.08691) reaches 50 to 73% on an A100. The "
        "place in that range is an assumption: serving prompts are short for it.",
        "Price: Lambda's on-demand list of 2025 for an A100 80GB SXM; an assumption for the A800.",
    ),
)

H100 = Device(
    name="NVIDIA H100 80GB SXM",
    flops_per_s=989e12,
    memory_bytes=80e9,
    memory_bytes_per_s=3350e9,
    link_bytes_per_s=450e9,
    price_per_hour=2.99,
    product_efficiency=792.1 / 989,
    attention_efficiency=0.50,
    sources=(
        "Device: NVIDIA H100 SXM data sheet: 989 TFLOPS bfloat16 dense, 80 GB HBM3 at 3.35 TB/s, NVLink "
        "900 GB/s both directions together, so 450 GB/s in one.",
        "Matrix products: 792.1 TFLOPS measured on an H100 SXM (github.com/mag-/gpu_benchmark, after the "
        "maximum achievable matmul FLOPS of github.com/stas00/ml-engineering).",
        "Attention: 50% of peak; FlashAttention-2 reaches 35% and FlashAttention-3 up to 75% on an H100 "
        "(arXiv 2407.08608). The place in that range is an assumption: serving prompts are short for it.",
        "Price: Lambda's on-demand list of 2025 for an H100 SXM.",
    ),
)
