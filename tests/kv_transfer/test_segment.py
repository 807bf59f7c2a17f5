"""Segments are shared, private to their user, and go when their owner does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kv_transfer.errors import AttachError
from kv_transfer.local_socket import connect, listen
from kv_transfer.segment import (
    SHM_DIR,
    SegmentOwner,
    SegmentTooLarge,
    SharedSegment,
    find_abandoned,
    reap_segments,
)
from tests.kv_transfer.loopback import CLUSTER, segments

OWNER = SegmentOwner(CLUSTER, "a/b 1", 77)

HOLD = f"""
import signal
from kv_transfer.local_socket import connect, listen
from kv_transfer.segment import SegmentOwner, SharedSegment
segment = SharedSegment.create(SegmentOwner({CLUSTER!r}, "child", 1), "kv", 4096)
print("ready", flush=True)
signal.pause()
"""


def test_what_one_writes_the_other_reads() -> None:
    segment = SharedSegment.create(OWNER, "kv", 64, {"planes": 3})
    peer = SharedSegment.attach(segment.path)
    segment.tensor(torch.float32, (4, 4)).fill_(1.5)
    assert np.array_equal(peer.array().view(np.float32), np.full(16, 1.5, np.float32))
    assert (peer.record.epoch, peer.record.pid, peer.record.labels) == (77, os.getpid(), {"planes": 3})
    assert segment.path.name == f"elasticmm-{CLUSTER}-a_b_1-kv-{os.getpid()}"
    assert segment.path.stat().st_mode & 0o777 == 0o600
    peer.close()
    segment.close()


def test_views_outlive_the_segment() -> None:
    segment = SharedSegment.create(OWNER, "kv", 64)
    view = segment.tensor(torch.uint8, (64,))
    segment.close()
    assert segments() == []
    view.fill_(9)
    assert view.sum() == 9 * 64


def test_a_dropped_segment_takes_its_name_away() -> None:
    segment = SharedSegment.create(OWNER, "kv", 64)
    assert segments() == [segment.path]
    del segment
    assert segments() == []


def test_too_large_names_the_size() -> None:
    room = os.statvfs(SHM_DIR)
    size_bytes = room.f_blocks * room.f_frsize + 2**20
    with pytest.raises(SegmentTooLarge, match=rf"kv segment needs {size_bytes / 2**20:.1f} MiB, .* are free"):
        SharedSegment.create(OWNER, "kv", size_bytes)
    assert segments() == []


def test_only_segments_can_be_attached(tmp_path: Path) -> None:
    outside = tmp_path / "elasticmm-x"
    outside.write_bytes(b"x" * 8192)
    foreign = SHM_DIR / f"elasticmm-{CLUSTER}-x-kv-1"
    foreign.write_bytes(b"x" * 8192)
    try:
        for path in (outside, foreign, SHM_DIR / "elasticmm-missing", SHM_DIR / "other"):
            with pytest.raises(AttachError, match=path.name):
                SharedSegment.attach(path)
    finally:
        foreign.unlink()


def test_a_killed_owners_segment_is_reaped_and_a_living_ones_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        reaped = reap_segments(CLUSTER)
        [path] = segments()
        assert path not in find_abandoned()
        child.kill()
    assert reaped == []
    assert reap_segments("another-cluster") == []
    assert path in find_abandoned()
    assert reap_segments(CLUSTER) == [path]
    assert path not in find_abandoned()
    assert segments() == []


def test_a_half_made_segment_of_a_dead_process_is_reaped() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    path = SHM_DIR / f"elasticmm-{CLUSTER}-x-kv-{child.pid}"
    path.write_bytes(b"")
    assert reap_segments(CLUSTER) == [path]


def test_what_a_killed_process_had_renamed_is_reaped_too() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        [path] = segments()
        whole = path.rename(f"{path}.moved")
        half, there = (path.with_name(f"elasticmm-{CLUSTER}-{n}-kv-{child.pid}.moved") for n in "hs")
        half.write_bytes(b"")
        listen(there).close()
        assert reap_segments(CLUSTER) == []
        child.kill()
    assert reap_segments(CLUSTER) == [whole, half, there]
    assert segments() == []


def test_a_forked_child_leaves_the_owners_segment_alone() -> None:
    segment = SharedSegment.create(OWNER, "kv", 64)
    code = (
        "import os, sys; from kv_transfer.segment import *\n"
        f"s = SharedSegment.create(SegmentOwner({CLUSTER!r}, 'parent', 1), 'kv', 64)\n"
        "pid = os.fork()\n"
        "if pid == 0: sys.exit(0)\n"
        "os.waitpid(pid, 0); print(s.path.exists())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    segment.close()


def test_files_of_others_are_left_alone() -> None:
    path = SHM_DIR / f"elasticmm-{CLUSTER}-media-{os.getpid()}-0"
    path.write_bytes(b"")
    try:
        assert reap_segments(CLUSTER) == []
    finally:
        path.unlink()


def test_a_dead_owners_socket_is_reaped_and_a_living_ones_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    dead, living = (SHM_DIR / f"elasticmm-{CLUSTER}-x-commit-{pid}" for pid in (child.pid, os.getpid()))
    listen(dead).close()
    listen(living).close()  # unheard, but its process could be about to listen
    heard = SHM_DIR / f"elasticmm-{CLUSTER}-y-commit-{child.pid}"
    with listen(heard):  # of another container, say: the process id means nothing here
        assert dead in (left := find_abandoned())
        assert heard not in left
        assert reap_segments(CLUSTER) == [dead]
    assert reap_segments(CLUSTER) == [heard]
    living.unlink()


def test_an_earlier_lifes_socket_is_replaced_and_one_in_use_is_not() -> None:
    path = SHM_DIR / f"elasticmm-{CLUSTER}-x-commit-{os.getpid()}"
    listen(path).close()
    with listen(path):
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(OSError, match="in use"):
            listen(path)
        connect(path).close()
    path.unlink()
