"""The attached instances: who they are, what they play, and whether they still live."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from coordinator.errors import InstanceRefusedError
from coordinator.stage_messages import (
    CacheCounters,
    Command,
    HeartbeatReport,
    InstanceInfo,
    InstanceLoad,
    Peer,
    TransferCounters,
)
from core.stages import Roles, Stage

# An instance that takes no commands for so long a time is as good as gone.
_MAX_OUTBOX = 65536


class Instance:
    """One attached stage server; lives as long as its stream."""

    def __init__(self, info: InstanceInfo, now_s: float) -> None:
        self.info = info
        self.roles = info.roles
        self.group = info.group
        self.load = InstanceLoad(
            free_kv_blocks=info.total_kv_blocks, free_embedding_blocks=info.total_embedding_blocks
        )
        self.transfers: tuple[TransferCounters, ...] = ()  # of the newest heartbeat
        self.caches: tuple[CacheCounters, ...] = ()  # likewise
        self.attached_s = now_s
        self.last_heard_s = now_s
        self.is_attached = True
        self.end_cause = ""
        self.outbox: asyncio.Queue[Command | None] = asyncio.Queue(_MAX_OUTBOX)

    @property
    def instance_id(self) -> str:
        return self.info.instance_id

    @property
    def peer(self) -> Peer:
        return Peer(self.info.instance_id, self.info.endpoint, self.info.host_id, self.info.epoch)

    def send(self, command: Command) -> None:
        """Queues a command; nothing where the instance is gone or does not read."""
        if self.is_attached and not self.outbox.full():
            self.outbox.put_nowait(command)

    def end(self, cause: str) -> None:
        """No more commands; the writer of the stream wakes up and ends it."""
        self.is_attached = False
        self.end_cause = self.end_cause or cause
        if self.outbox.full():
            self.outbox.get_nowait()
        self.outbox.put_nowait(None)

    def note_heard(self, now_s: float) -> None:
        self.last_heard_s = now_s

    def note_heartbeat(self, heartbeat: HeartbeatReport) -> None:
        self.load = heartbeat.load
        self.transfers = heartbeat.transfers
        self.caches = heartbeat.caches
        if heartbeat.roles:
            self.roles = heartbeat.roles
        if heartbeat.group is not None:
            self.group = heartbeat.group


class Registry:
    """By name, in order of attachment."""

    def __init__(self, fingerprint: str, heartbeat_timeout_s: float) -> None:
        self._fingerprint = fingerprint
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._instances: dict[str, Instance] = {}

    def attach(self, info: InstanceInfo, now_s: float) -> Instance:
        """Takes an instance in. Raises InstanceRefusedError naming the field that does not fit."""
        self._check(info)
        instance = Instance(info, now_s)
        self._instances[info.instance_id] = instance
        return instance

    def detach(self, instance: Instance) -> bool:
        """False if it was not here any more."""
        if self._instances.get(instance.instance_id) is not instance:
            return False
        del self._instances[instance.instance_id]
        return True

    def get(self, instance_id: str) -> Instance | None:
        return self._instances.get(instance_id)

    def __iter__(self) -> Iterator[Instance]:
        return iter(tuple(self._instances.values()))

    def __len__(self) -> int:
        return len(self._instances)

    def free_name(self, roles: Roles) -> str:
        """A name for an instance that wants none in particular: "e0", "pd1"."""
        letters = "".join(stage.value for stage in Stage if stage in roles)
        number = 0
        while f"{letters}{number}" in self._instances:
            number += 1
        return f"{letters}{number}"

    def excuse(self, seconds: float) -> None:
        """Nobody could be heard for so long."""
        for instance in self._instances.values():
            instance.note_heard(instance.last_heard_s + seconds)

    def silent(self, now_s: float) -> tuple[Instance, ...]:
        """Instances that missed their heartbeats or stopped taking commands."""
        return tuple(
            instance
            for instance in self._instances.values()
            if now_s - instance.last_heard_s > self._heartbeat_timeout_s or instance.outbox.full()
        )

    def played(self) -> Roles:
        """The stages that some instance plays."""
        return frozenset().union(*(instance.roles for instance in self._instances.values()))

    def _check(self, info: InstanceInfo) -> None:
        if info.model_fingerprint != self._fingerprint:
            raise InstanceRefusedError(
                "register.model_fingerprint", f"{info.model_fingerprint[:12]}… is not the served model's"
            )
        for other in self._instances.values():
            if other.instance_id != info.instance_id and other.info.dtype != info.dtype:
                raise InstanceRefusedError(
                    "register.dtype", f"{info.dtype}, but {other.instance_id} serves in {other.info.dtype}"
                )
        if info.block_tokens < 1:
            raise InstanceRefusedError("register.block_tokens", "must be at least 1")
        if info.roles & {Stage.PREFILL, Stage.DECODE} and info.total_kv_blocks < 1:
            raise InstanceRefusedError(
                "register.total_kv_blocks", "must be at least 1 for prefill and decode"
            )
        self._check_name(info)

    def _check_name(self, info: InstanceInfo) -> None:
        present = self._instances.get(info.instance_id)
        if present is not None and present.info.epoch == info.epoch:
            raise InstanceRefusedError("register.instance_id", f"{info.instance_id} is attached already")
