"""A whole cluster under a steady load: it takes the form that suits, and then nothing moves."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from core.costs import EncodeCosts
from core.profile_file import write_profile
from elasticmm_client import AdminClient, GenerateResult
from tests.checkpoints import build_checkpoint
from tests.integration.asking import make_questions
from tests.integration.running import Running, cluster
from tests.quick_profile import make_profile

pytestmark = pytest.mark.cluster

RATE_RPS = 12.0
SETTLING = 240  # requests: 20 s
WATCHED = 180


class SteadyLoad:
    """Text and pictures in turn at even gaps, until told to stop, whether or not answers have come."""

    def __init__(self, running: Running) -> None:
        self._client = running.client
        self._asked = make_questions(seed=5, count=2)  # the second has a picture
        self._stop = threading.Event()
        self._answered = threading.Semaphore(0)
        self._threads = ThreadPoolExecutor(64)
        self._answers: list[Future[GenerateResult]] = []
        self._pacing = threading.Thread(target=self._pace)
        self._pacing.start()

    def wait_for(self, num_answers: int) -> None:
        """Raises AssertionError where a minute passes without an answer."""
        for _ in range(num_answers):
            assert self._answered.acquire(timeout=60)

    def end(self) -> list[GenerateResult]:
        """Every answer; raises what a request failed with."""
        self._stop.set()
        self._pacing.join()
        self._threads.shutdown()
        return [answer.result() for answer in self._answers]

    def _pace(self) -> None:
        while not self._stop.wait(1 / RATE_RPS):
            self._answers.append(self._threads.submit(self._ask, len(self._answers)))

    def _ask(self, number: int) -> GenerateResult:
        messages = self._asked[number % 2].messages
        result = self._client.generate(messages, max_tokens=16, ignore_eos=True).result()
        self._answered.release()
        return result


def test_a_steady_load_moves_nothing_after_settling(tmp_path: Path) -> None:
    """Started with one encoder, which cannot keep up: pictures take 0.25 s each, six come a second."""
    model = build_checkpoint(tmp_path / "model")
    profile = replace(make_profile(), encode=EncodeCosts(0.25, 1e-5), kv_tokens=16 * 400)
    path = tmp_path / "slow-encoder.json"
    write_profile(profile, path)
    options = ["--device", f"emulated:{path}", "--policy", "emp", "--slo", "1,0.1"]
    with (
        cluster(tmp_path / "state", model, "e1p2d1", *options) as running,
        AdminClient(running.address, (running.state_dir / "token").read_text().strip()) as admin,
    ):
        load = SteadyLoad(running)
        try:
            load.wait_for(SETTLING)
            settled = admin.plan()
            load.wait_for(WATCHED)
            watched = admin.plan()
        finally:
            answers = load.end()
        running.assert_idle()
    assert settled.transitions_done > 0, "the form it was started in was to be left"
    assert watched.transitions_done == settled.transitions_done
    assert [each.wanted for each in watched.instances] == [each.wanted for each in settled.instances]
    assert all(len(each.token_ids) == 16 for each in answers)
