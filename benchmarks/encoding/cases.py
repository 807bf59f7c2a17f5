"""Loads whose time to first token should not hang on what else comes."""

from __future__ import annotations

from benchmarks.encoding.storm import Case, Stream

_GROUPS = ("text", "multimodal")

EMULATED = (
    Case(
        name="emulated: text, pictures on an instance of their own",
        topology="coupled",
        num_instances=2,
        probe=Stream(rate=8.0, text_tokens=500),
        storm=Stream(rate=10.0, text_tokens=16, picture_px=(1288, 728)),
        duration_s=6.0,
        groups=_GROUPS,
    ),
    Case(
        name="emulated: small pictures, large ones in between, one encoder",
        topology="e1p4d1",
        num_instances=None,
        probe=Stream(rate=8.0, text_tokens=16, picture_px=(448, 448)),
        storm=Stream(rate=0.7, text_tokens=16, picture_px=(2576, 1456)),
        duration_s=5.0,
    ),
)
COMPUTED = (
    Case(
        name="computed: text, pictures on an instance of their own",
        topology="coupled",
        num_instances=2,
        probe=Stream(rate=2.0, text_tokens=120),
        storm=Stream(rate=6.0, text_tokens=16, picture_px=(448, 448)),
        duration_s=8.0,
        groups=_GROUPS,
    ),
)
