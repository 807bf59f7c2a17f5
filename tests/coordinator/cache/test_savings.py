from coordinator.cache.savings import Saved, SavingsMeter
from coordinator.registry import Instance
from coordinator.stage_messages import CacheCounters, CachePool
from tests.coordinator.instances import make_instance


def holding(saved_s: float, hit_bytes: int, epoch: int = 1) -> Instance:
    instance = make_instance(epoch=epoch)
    instance.caches = (CacheCounters(CachePool.KV, saved_s=saved_s, hit_bytes=hit_bytes),)
    return instance


def test_counts_from_what_was_said_first() -> None:
    meter = SavingsMeter()
    assert meter.take([holding(5.0, 100)]) == Saved(0, 0)
    assert meter.take([holding(5.5, 130)]) == Saved(0.5, 30)
    assert meter.take([holding(5.5, 130)]) == Saved(0, 0)


def test_a_new_life_begins_anew() -> None:
    meter = SavingsMeter()
    meter.take([holding(5.0, 100)])
    assert meter.take([holding(1.0, 10, epoch=2)]) == Saved(0, 0)
    assert meter.take([holding(1.5, 40, epoch=2)]) == Saved(0.5, 30)
