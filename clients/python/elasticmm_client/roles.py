"""Stages and modality groups by the names that clients see."""

from __future__ import annotations

from elasticmm.v1 import inference_pb2, stage_control_pb2

STAGES = {
    inference_pb2.STAGE_ENCODE: "encode",
    inference_pb2.STAGE_PREFILL: "prefill",
    inference_pb2.STAGE_DECODE: "decode",
}
GROUPS = {
    stage_control_pb2.MODALITY_GROUP_TEXT: "text",
    stage_control_pb2.MODALITY_GROUP_MULTIMODAL: "multimodal",
    stage_control_pb2.MODALITY_GROUP_SHARED: "shared",
}


def stage_numbers(names: tuple[str, ...]) -> list[inference_pb2.Stage.ValueType]:
    """Raises ValueError naming what is no stage."""
    back = {name: stage for stage, name in STAGES.items()}
    for name in names:
        if name not in back:
            raise ValueError(f"roles: {name!r} is none of {', '.join(back)}")
    return [back[name] for name in names]


def group_number(name: str | None) -> stage_control_pb2.ModalityGroup.ValueType:
    """Unspecified for None; raises ValueError for what is no group."""
    if name is None:
        return stage_control_pb2.MODALITY_GROUP_UNSPECIFIED
    for group, known in GROUPS.items():
        if known == name:
            return group
    raise ValueError(f"group: {name!r} is none of {', '.join(GROUPS.values())}")
