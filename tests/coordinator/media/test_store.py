"""Leases, expiry and the bound on bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.errors import NotFoundError, OverloadedError
from coordinator.media.picture import PictureHeader
from coordinator.media.segments import SegmentFolder
from coordinator.media.store import MediaStore, StoredItem
from core.clock import ManualClock

HEADER = PictureHeader(1, 1, "image/png")


class Fixture:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.folder = folder
        self.store = MediaStore(max_bytes=100, ttl_s=10, clock=self.clock)

    def add(self, name: str, size_bytes: int = 40, tenant: str = "t") -> StoredItem:
        path = self.folder / f"{name}-{tenant}-{self.clock.now_s()}"
        path.write_bytes(b"x")
        self.store.reserve(tenant, size_bytes)
        try:
            return self.store.add(tenant, name.encode(), size_bytes, HEADER, path)
        finally:
            self.store.unreserve(tenant, size_bytes)
            self.store.check_integrity()

    @property
    def names(self) -> list[str]:
        return sorted(path.name.partition("-")[0] for path in self.folder.iterdir())


@pytest.fixture
def kept(tmp_path: Path) -> Fixture:
    return Fixture(tmp_path)


def test_unleased_items_expire(kept: Fixture) -> None:
    kept.add("a")
    kept.clock.advance(9)
    kept.store.sweep()
    assert kept.names == ["a"]
    kept.clock.advance(2)
    kept.store.sweep()
    assert kept.names == []
    with pytest.raises(NotFoundError):
        kept.store.get("t", b"a")


def test_leased_items_stay_until_released(kept: Fixture) -> None:
    item = kept.add("a")
    kept.store.lease(item, "r1")
    kept.store.lease(item, "r2")
    kept.clock.advance(100)
    kept.store.release("r1")
    kept.store.sweep()
    assert kept.store.get("t", b"a") is item
    kept.store.release("r2")
    kept.store.release("unknown")
    kept.clock.advance(11)
    kept.store.sweep()
    assert len(kept.store) == 0
    assert kept.store.num_leases == 0


def test_the_least_recently_used_makes_room(kept: Fixture) -> None:
    first = kept.add("a")
    kept.add("b")
    kept.store.lease(first, "r")
    kept.store.release("r")
    kept.add("c")
    assert kept.names == ["a", "c"]


def test_leased_items_never_make_room(kept: Fixture) -> None:
    for name in "ab":
        kept.store.lease(kept.add(name), "r")
    with pytest.raises(OverloadedError):
        kept.store.reserve("t", 40)
    assert kept.names == ["a", "b"]
    assert kept.store.num_bytes == 80


def test_a_tenant_within_its_share_keeps_its_items(kept: Fixture) -> None:
    kept.add("a", 50, tenant="quiet")
    for number in range(10):
        kept.add(f"n{number}", 25, tenant="loud")
    assert kept.names == ["a", "n8", "n9"]


def test_whoever_is_most_over_its_share_gives(kept: Fixture) -> None:
    for number in range(5):
        kept.add(f"n{number}", 20, tenant="loud")  # alone it may have all
    kept.add("b", 30, tenant="late")
    kept.add("c", 30, tenant="later")
    assert kept.names == ["b", "c", "n3", "n4"]


def test_named_shares_are_theirs_and_the_rest_is_parted_equally(kept: Fixture) -> None:
    kept.store.set_shares({"big": 0.6})
    for number in range(6):
        kept.add(f"b{number}", 10, tenant="big")
    for number in range(8):
        kept.add(f"s{number}", 10, tenant="small")
    assert kept.names == [*(f"b{number}" for number in range(6)), "s4", "s5", "s6", "s7"]
    kept.store.set_shares({})  # half each from now on
    kept.add("s8", 10, tenant="small")
    assert kept.names == ["b1", "b2", "b3", "b4", "b5", "s4", "s5", "s6", "s7", "s8"]


def test_who_is_over_makes_room_for_itself_and_takes_nobodys_share(kept: Fixture) -> None:
    kept.add("a", 50, tenant="quiet")
    kept.store.lease(kept.add("b", 50, tenant="loud"), "r")
    with pytest.raises(OverloadedError) as caught:
        kept.store.reserve("loud", 10)
    assert caught.value.quota == "media.store_bytes"
    assert kept.names == ["a", "b"]
    kept.store.release("r")
    kept.add("c", 10, tenant="loud")
    assert kept.names == ["a", "c"]
    kept.store.check_integrity()


def test_what_one_uses_leaves_room_for_newcomers_and_named_shares(kept: Fixture) -> None:
    kept.store.set_shares({"named": 0.36})
    kept.store.lease(kept.add("a", 74, tenant="loud"), "r1")  # but half of 36 and an eighth of 64
    with pytest.raises(OverloadedError, match="'loud' uses more than its share") as caught:
        kept.store.reserve("loud", 1)
    assert caught.value.quota == "media.store_bytes"
    kept.store.lease(kept.add("b", 8, tenant="late"), "r2")
    kept.store.lease(kept.add("c", 18, tenant="named"), "r3")
    with pytest.raises(OverloadedError):
        kept.store.reserve("later", 1)  # there is nothing left to give
    kept.store.release("r1")
    kept.store.lease(kept.add("d", 20, tenant="late"), "r2")
    kept.store.check_integrity()


def test_where_all_is_named_others_use_half_of_what_is_not_filled(kept: Fixture) -> None:
    kept.store.set_shares({"a": 0.5, "b": 0.5})
    kept.store.reserve("other", 50)
    with pytest.raises(OverloadedError):
        kept.store.reserve("other", 1)
    kept.store.reserve("a", 50)


def test_what_is_asked_for_again_is_used_like_what_comes(kept: Fixture) -> None:
    for name in "ab":
        kept.add(name, 50, tenant="loud")
    kept.store.check_use("loud", 50)
    kept.store.lease(kept.store.get("loud", b"a"), "r")
    with pytest.raises(OverloadedError):
        kept.store.check_use("loud", 50)
    kept.add("c", 30, tenant="late")
    assert kept.names == ["a", "c"]


def test_who_is_alone_is_over_its_share_from_the_half_on_and_uses_seven_eighths(kept: Fixture) -> None:
    kept.store.reserve("loud", 88)
    with pytest.raises(OverloadedError):
        kept.store.reserve("loud", 1)
    kept.store.reserve("late", 12)


def test_bytes_on_their_way_are_their_tenants(kept: Fixture) -> None:
    kept.add("a", 50, tenant="quiet")
    kept.store.reserve("loud", 50)
    with pytest.raises(OverloadedError):
        kept.store.reserve("loud", 1)
    kept.add("b", 20, tenant="quiet")
    assert kept.names == ["b"]


def test_bytes_on_their_way_count(kept: Fixture) -> None:
    kept.store.reserve("t", 80)
    with pytest.raises(OverloadedError):
        kept.store.reserve("t", 20)
    kept.store.unreserve("t", 80)
    kept.store.reserve("t", 20)
    kept.store.check_integrity()


def test_the_same_item_twice_is_kept_once(kept: Fixture) -> None:
    item = kept.add("a")
    kept.clock.advance(1)
    assert kept.add("a") is item
    assert kept.names == ["a"]
    assert kept.store.num_bytes == 40


def test_what_another_tenant_brought_is_not_there(kept: Fixture) -> None:
    mine, other = kept.add("a"), kept.add("a", tenant="u")
    assert mine is not other
    assert kept.names == ["a", "a"]
    kept.clock.advance(11)
    kept.store.lease(other, "r")
    kept.store.sweep()
    refusals = []
    for digest in (b"a", b"b"):
        with pytest.raises(NotFoundError) as caught:
            kept.store.get("t", digest)
        refusals.append(caught.value.reason.replace(digest.hex(), "…"))
    assert refusals[0] == refusals[1]
    assert kept.store.get("u", b"a") is other


def test_parts_of_the_cluster_find_an_item_whoever_brought_it(kept: Fixture) -> None:
    first, second = kept.add("a"), kept.add("a", tenant="u")
    assert kept.store.find(b"a") is first
    kept.store.lease(second, "r")
    kept.clock.advance(11)
    kept.store.sweep()
    assert kept.store.find(b"a") is second
    kept.store.release("r")
    kept.clock.advance(11)
    kept.store.sweep()
    with pytest.raises(NotFoundError):
        kept.store.find(b"a")


def test_segments_are_private_and_go_with_their_process(tmp_path: Path) -> None:
    segments = SegmentFolder(tmp_path)
    path, file = segments.create()
    file.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert str(os.getpid()) in path.name
    segments.remove_own()
    assert not path.exists()


def test_segments_of_dead_gateways_are_reaped(tmp_path: Path) -> None:
    dead = tmp_path / f"elasticmm-media-{2**22 + 1}-0"
    alive = tmp_path / f"elasticmm-media-{os.getppid()}-0"
    other = tmp_path / "elasticmm-media-notes"
    for path in (dead, alive, other):
        path.touch()
    assert SegmentFolder(tmp_path).reap() == 1
    assert sorted(tmp_path.iterdir()) == sorted([alive, other])
