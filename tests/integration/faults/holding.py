"""Points at which a stage server of these tests stands still: it stops itself and tells where.

A test writes ROLE.arm with a point's name into the control folder. Whichever instance of that role gets
there first takes the file away, writes `reached` and stops all its threads with SIGSTOP.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kv_transfer.in_place.lender import Lender
from kv_transfer.layout import PayloadKind
from kv_transfer.outgoing import Outgoing
from kv_transfer.receiver import TransferReceiver
from stage_servers.encode_stage import EncodeStage
from stage_servers.engine.model import Model
from stage_servers.kv_copy import KvCopy
from stage_servers.media_pull import MediaPuller
from stage_servers.prefill_stage import PrefillStage
from stage_servers.step_reports import StepReports

DECODE_INDEX = 20  # a token well within the answer


@dataclass(frozen=True, slots=True)
class Reached:
    """Who stands at the point; `peer` is whom it works with and `request_id` for what, where it knows."""

    instance: str = ""
    pid: int = 0
    peer: str = ""
    request_id: str = ""


Look = Callable[..., Reached | None]  # from the arguments of the method; None: not here
_decoders: dict[tuple[str, int], str] = {}  # of prefills with hand-over


def _told_to_encode(_stage: Any, job: Any, **_: Any) -> Reached | None:
    return Reached(peer=job.prefill.instance_id, request_id=job.key[0])


def _anywhere(*_: Any) -> Reached | None:
    return Reached()


def _lending(_lender: Any, peer: Any, key: Any, *_: Any) -> Reached | None:
    return Reached(peer=peer.instance_id, request_id=key[0])


def _sending(kind: PayloadKind) -> Look:
    def look(outgoing: Any, *_: Any) -> Reached | None:
        is_it = outgoing.transfer.source.layout.kind is kind
        return Reached(peer=outgoing.peer.instance_id) if is_it else None

    return look


def _told_to_prefill(_stage: Any, spec: Any, decode: Any, *_: Any) -> Reached | None:
    _decoders[spec.key] = decode.instance_id
    return Reached(peer=decode.instance_id, request_id=spec.request_id)


def _in_chunk(*, is_first: bool) -> Look:
    """After half of the layers."""

    def look(_stage: Any, layers: range, chunks: Any) -> Reached | None:
        for chunk in chunks if 1 in layers else ():
            if (chunk.first_token == 0) is is_first and chunk.key in _decoders:
                return Reached(peer=_decoders[chunk.key], request_id=chunk.key[0])
        return None

    return look


def _arriving(role: str) -> Look:
    """KV that a prefill brings, or another decoder."""

    def look(receiver: Any, record: Any) -> Reached | None:
        for lease in receiver.leases:
            is_it = lease.kind is PayloadKind.KV and lease.sender_instance_id.startswith(role)
            if is_it and lease.lease_id == record.lease_id:
                return Reached(peer=lease.sender_instance_id, request_id=lease.key[0])
        return None

    return look


def _decoded(_steps: Any, output: Any, _end_ns: int) -> Reached | None:
    for token in output.tokens:
        if token.index >= DECODE_INDEX and token.finish is None:
            return Reached(request_id=token.key[0])
    return None


def _ended(_steps: Any, output: Any, _end_ns: int) -> Reached | None:
    for token in output.tokens:
        if token.finish is not None:
            return Reached(request_id=token.key[0])
    return None


def _copying(copy: Any, _room_tokens: int) -> Reached | None:
    """Once a round has been pushed."""
    is_first = copy._num_rounds == 0
    return None if is_first else Reached(peer=copy._outgoing.peer.instance_id, request_id=copy._key[0])


POINTS: dict[str, tuple[type, str, Look]] = {
    "told to encode": (EncodeStage, "run", _told_to_encode),
    "pulling": (MediaPuller, "pull", _anywhere),
    "encoding": (Model, "encode_in_parts", _anywhere),
    "lending an embedding": (Lender, "lend", _lending),
    "told to prefill": (PrefillStage, "run", _told_to_prefill),
    "first chunk": (PrefillStage, "on_layers_written", _in_chunk(is_first=True)),
    "middle chunk": (PrefillStage, "on_layers_written", _in_chunk(is_first=False)),
    "committing KV": (Outgoing, "commit", _sending(PayloadKind.KV)),  # of a prefill, or of a move
    "KV arrives": (TransferReceiver, "commit", _arriving("p")),
    "moved KV arrives": (TransferReceiver, "commit", _arriving("d")),
    "decoding": (StepReports, "step_done", _decoded),
    "ending": (StepReports, "step_done", _ended),
    "copying to move": (KvCopy, "look", _copying),
}


def install(instance_id: str, control: Path) -> None:
    """Has this process, which becomes that instance, stand still where a test asks for it."""
    arm = control / f"{instance_id.partition('-')[0]}.arm"
    for point, (owner, method, look) in POINTS.items():
        _wrap(owner, method, look, lambda found, point=point: _stand(arm, point, instance_id, found))


def _wrap(owner: type, method: str, look: Look, stand: Callable[[Reached], None]) -> None:
    original = getattr(owner, method)

    def held(*args: Any, **kwargs: Any) -> Any:
        found = look(*args, **kwargs)
        if found is not None:
            stand(found)
        return original(*args, **kwargs)

    setattr(owner, method, held)


def _stand(arm: Path, point: str, instance_id: str, found: Reached) -> None:
    try:
        if arm.read_text() != point:
            return
        arm.unlink()  # by one process only
    except FileNotFoundError:
        return
    reached = Reached(instance_id, os.getpid(), found.peer, found.request_id)
    written = arm.with_name("writing")
    written.write_text(json.dumps(asdict(reached)))
    written.rename(arm.with_name("reached"))
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # this thread first, so nothing more happens
