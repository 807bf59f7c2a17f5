"""Model families as the engine runs them; the one line that selects an adapter."""

from __future__ import annotations

from core.families import Family
from stage_servers.engine.families.adapter import FamilyAdapter
from stage_servers.engine.families.qwen_vl import Qwen3VLAdapter, Qwen25VLAdapter

_ADAPTERS: dict[str, type[FamilyAdapter]] = {
    "Qwen2_5_VLForConditionalGeneration": Qwen25VLAdapter,
    "Qwen3VLForConditionalGeneration": Qwen3VLAdapter,
}


def adapter_for(family: Family) -> type[FamilyAdapter]:
    """The adapter of a family that core.families knows; the two registries name the same architectures."""
    return _ADAPTERS[family.architecture]
