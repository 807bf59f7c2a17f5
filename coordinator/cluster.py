"""The instances' side of the coordinator: attach, report, vanish; and what the cluster is now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from coordinator.cache.cluster_cache import ClusterCache
from coordinator.dispatcher import Dispatcher
from coordinator.errors import InstanceRefusedError, UnavailableError
from coordinator.planner import Planner
from coordinator.policy.plan import Assignment, needed_stages
from coordinator.registry import Instance, Registry
from coordinator.stage_messages import (
    CacheReport,
    FailureReport,
    HeartbeatReport,
    InstanceInfo,
    InstanceLoad,
    MigrationReport,
    NeedReport,
    RegisteredCommand,
    Report,
    SetCacheSharesCommand,
    SetRolesCommand,
    StageReport,
    StepReport,
    StopCommand,
    TransferCounters,
)
from core.clock import Clock
from core.stages import COUPLED, ModalityGroup, Roles, Stage
from core.topology import Topology

log = logging.getLogger(__name__)

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance as admins see it."""

    info: InstanceInfo  # with the roles it plays now
    load: InstanceLoad
    uptime_s: float
    last_heartbeat_s: float
    num_requests: int
    transfers: tuple[TransferCounters, ...] = ()


class Cluster:
    """Owns the registry; tells the dispatcher and the index of caches what came and went.

    `on_readiness` is told whether all three stages are played.
    """

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        planner: Planner,
        cache: ClusterCache,
        clock: Clock,
        *,
        wanted: Topology | None,
        heartbeat_interval_s: float,
        tpot_s: float,
        on_readiness: Callable[[bool], None],
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._planner = planner
        self._cache = cache
        self._clock = clock
        self._wanted = wanted
        self._heartbeat_interval_s = heartbeat_interval_s
        self._tpot_s = tpot_s
        self._on_readiness = on_readiness
        self._cache_shares: Mapping[str, float] = {}
        self._is_stopping = False
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def attach(self, info: InstanceInfo) -> Instance:
        """Raises InstanceRefusedError naming the field of Register that does not fit."""
        info, is_assigned = self._complete(info)
        self._replace_earlier_life(info)
        instance = self._registry.attach(info, self._clock.now_s())
        instance.send(self._registered(info.instance_id))
        if is_assigned:
            instance.send(SetRolesCommand(info.roles))
        if self._cache_shares:
            instance.send(SetCacheSharesCommand(self._cache_shares))
        self._cache.attach(info)
        self._dispatcher.add_instance(instance)
        log.info(
            "instance %s: attached as %s, %s",
            info.instance_id,
            _roles_text(info.roles),
            info.endpoint,
            extra={"instance_id": info.instance_id},
        )
        self._note_change()
        return instance

    def _registered(self, instance_id: str) -> RegisteredCommand:
        heartbeat_ms = round(self._heartbeat_interval_s * 1e3)
        return RegisteredCommand(instance_id, heartbeat_ms, round(self._tpot_s * 1e6))

    def take(self, instance: Instance, report: Report) -> None:
        """One message of an attached instance; those of an instance given up are dropped."""
        if not instance.is_attached:
            return
        instance.note_heard(self._clock.now_s())
        match report:
            case StepReport():
                self._dispatcher.take_step(instance, report)
            case StageReport():
                self._dispatcher.take_stage(instance, report)
            case FailureReport():
                self._dispatcher.take_failure(instance, report)
            case MigrationReport():
                self._dispatcher.take_migration(instance, report)
            case NeedReport():
                self._dispatcher.take_need(instance, report)
            case CacheReport():
                self._cache.update(instance.instance_id, instance.info.epoch, report)
            case HeartbeatReport():
                self._take_heartbeat(instance, report)

    def detach(self, instance: Instance, cause: str) -> None:
        """The instance is gone; its requests go on elsewhere. Nothing if it was gone before."""
        instance.end(cause)
        if self._registry.detach(instance):
            level = logging.INFO if self._is_stopping else logging.WARNING
            facts = {"instance_id": instance.instance_id}
            log.log(level, "instance %s: gone, %s", instance.instance_id, instance.end_cause, extra=facts)
            self._planner.lose(instance.instance_id)
            self._cache.detach(instance.instance_id)
            self._dispatcher.lose_instance(instance, instance.end_cause)
            self._note_change()

    def watch(self) -> None:
        """Called once per heartbeat interval: gives up the silent, fails what waits in vain, tidies up."""
        for instance in self._registry.silent(self._clock.now_s()):
            self.detach(instance, "missed its heartbeats")
        self._dispatcher.expire()
        self._cache.tidy()

    async def watch_forever(self) -> None:
        """Blames nobody for the time that this process stood still: heartbeats are there to be read yet."""
        while True:
            due_s = self._clock.now_s() + self._heartbeat_interval_s
            await asyncio.sleep(self._heartbeat_interval_s)
            self._registry.excuse(max(0.0, self._clock.now_s() - due_s))
            self.watch()

    async def stop_instances(self, grace_s: float) -> None:
        """Tells all to stop and waits for them to go, at most `grace_s`."""
        self._is_stopping = True
        for instance in self._registry:
            instance.send(StopCommand())
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._is_empty.wait()

    def set_cache_shares(self, shares: Mapping[str, float]) -> None:
        """What tenants keep of every cache from now on, on instances that are here and that come."""
        self._cache_shares = shares
        for instance in self._registry:
            instance.send(SetCacheSharesCommand(shares))

    def check_can_serve(self, has_media: bool) -> None:
        """Raises UnavailableError naming the stages that nobody plays."""
        group = ModalityGroup.MULTIMODAL if has_media else ModalityGroup.TEXT
        lacking = needed_stages(group) - self._registry.played()
        if lacking:
            names = ", ".join(stage.name for stage in Stage if stage in lacking)
            raise UnavailableError(f"no instance plays {names} yet", retry_after_s=_RETRY_AFTER_S)

    @property
    def is_ready(self) -> bool:
        return self._registry.played() == COUPLED

    @property
    def num_instances(self) -> int:
        return len(self._registry)

    @property
    def num_missing(self) -> int:
        """Instances still to come: of the wanted topology, else one per stage that nobody plays."""
        if self._wanted is None:
            return len(COUPLED - self._registry.played())
        by_number = max(0, self._wanted.num_instances - len(self._registry))  # roles may have been switched
        return min(by_number, self._wanted.missing([instance.roles for instance in self._registry]))

    def status(self) -> tuple[InstanceStatus, ...]:
        now_s, requests = self._clock.now_s(), self._dispatcher.requests_by_instance()
        return tuple(
            InstanceStatus(
                info=replace(instance.info, roles=instance.roles, group=instance.group),
                load=instance.load,
                uptime_s=now_s - instance.attached_s,
                last_heartbeat_s=now_s - instance.last_heard_s,
                num_requests=requests[instance.instance_id],
                transfers=instance.transfers,
            )
            for instance in self._registry
        )

    def _complete(self, info: InstanceInfo) -> tuple[InstanceInfo, bool]:
        """Fills in roles and name where the instance left them to us; whether roles were."""
        roles = info.roles or self._open_slot()
        name = info.instance_id or self._registry.free_name(roles)
        return replace(info, roles=roles, instance_id=name), not info.roles

    def _open_slot(self) -> Roles:
        if self._wanted is None:
            raise InstanceRefusedError("register.roles", "none given, and no topology says which are wanted")
        present = [instance.roles for instance in self._registry]
        for slot in self._wanted.instances:
            if slot not in present:
                return slot
            present.remove(slot)
        raise InstanceRefusedError("register.roles", "none given, and the topology is complete")

    def _replace_earlier_life(self, info: InstanceInfo) -> None:
        earlier = self._registry.get(info.instance_id)
        if earlier is not None and earlier.info.epoch != info.epoch:
            self.detach(earlier, "was started anew")

    def _take_heartbeat(self, instance: Instance, report: HeartbeatReport) -> None:
        before = instance.roles, instance.group
        instance.note_heartbeat(report)
        self._dispatcher.note_heartbeat(instance)
        if before != (instance.roles, instance.group):
            self._dispatcher.note_roles(instance)
            self._note_change()
        self._planner.note_roles(instance.instance_id, Assignment(instance.roles, instance.group))

    def _note_change(self) -> None:
        if len(self._registry):
            self._is_empty.clear()
        else:
            self._is_empty.set()
        self._on_readiness(self.is_ready)
        self._dispatcher.tick()


def _roles_text(roles: Roles) -> str:
    return "+".join(stage.name for stage in Stage if stage in roles)
