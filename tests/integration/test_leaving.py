"""Clients and instances that leave: nothing is left behind, and streams go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from elasticmm_client import Client, Stream, Tokens
from tests.checkpoints import build_checkpoint
from tests.exactness import Oracle, Tally
from tests.integration.asking import make_questions, tokenizer_of
from tests.integration.running import Running, cluster

pytestmark = pytest.mark.cluster

OPTIONS = ["--dtype", "float32", "--kv-blocks", "400", "--threads", "1"]
LONG = 1500
ENDLESS_CLIENT = f"""
import sys
from elasticmm_client import Client
for event in Client(sys.argv[1]).generate(sys.argv[2], max_tokens={LONG}, ignore_eos=True):
    print(event, flush=True)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("models") / "first")


@pytest.fixture(scope="module")
def running(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with cluster(tmp_path_factory.mktemp("cluster") / "state", model, "e1p1d2", *OPTIONS) as started:
        yield started


def test_a_killed_client_frees_everything(running: Running) -> None:
    command = [sys.executable, "-c", ENDLESS_CLIENT, running.address, "what is the large circle?"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        for _ in range(8):
            assert client.stdout.readline()
        running.wait_until(lambda status: any(each.sequences_decoding for each in status.instances))
        client.kill()
    running.assert_idle()


def test_a_cancelled_stream_frees_everything(running: Running) -> None:
    for asked in make_questions(seed=3, count=3):
        stream = running.client.generate(asked.messages, max_tokens=LONG, ignore_eos=True)
        for _, event in zip(range(5), stream, strict=False):
            assert event is not None
        stream.cancel()
    running.assert_idle()


def test_a_deadline_frees_everything(running: Running) -> None:
    from elasticmm_client import DeadlineExceeded

    stream = running.client.generate("what is it?", max_tokens=LONG, ignore_eos=True, deadline_s=0.3)
    with pytest.raises(DeadlineExceeded):
        stream.result()
    running.assert_idle()


def test_a_killed_decode_instance_changes_no_token(model: Path, tmp_path: Path) -> None:
    oracle, tokenizer, tally = Oracle(model), tokenizer_of(model), Tally()
    asked = make_questions(seed=11, count=3)
    with cluster(tmp_path / "state", model, "e1p1d2", *OPTIONS) as running, Client(running.address) as client:
        streams = [client.generate(each.messages, max_tokens=900, ignore_eos=True) for each in asked]
        for stream in streams:
            read_until_decoding(stream)
        kill_a_busy_decoder(running)
        results = [stream.result() for stream in streams]
        for each, result in zip(asked, results, strict=True):
            oracle.compare(each.question(tokenizer), result.token_ids, tally)
        tally.check()
        assert any(sum(span.stage == "prefill" for span in result.stages) == 2 for result in results), (
            "no request was dispatched again"
        )
        time.sleep(0.2)
        running.assert_idle()


def read_until_decoding(stream: Stream) -> None:
    """To a token after the first, which is the prefill's."""
    for event in stream:
        if isinstance(event, Tokens) and event.first_index + len(event.token_ids) > 1:
            return
    raise AssertionError("the answer ended")


def kill_a_busy_decoder(running: Running) -> None:
    """Stops both decoders, so that nothing ends meanwhile, kills a busy one, lets the other go on."""
    pids = {name: pid for name, pid in running.pids.items() if name.startswith("d-")}
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    time.sleep(0.3)  # for what they had sent
    busy = [each for each in running.status().instances if each.id in pids and each.requests]
    assert busy, "every answer had ended"
    os.kill(busy[0].pid, signal.SIGKILL)
    for name, pid in pids.items():
        if name != busy[0].id:
            os.kill(pid, signal.SIGCONT)
