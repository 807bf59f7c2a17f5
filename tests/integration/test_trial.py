"""Two policy sets on shares of the instances of a real cluster: no request fails, no token differs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from elasticmm_client import AdminClient, InvalidRequest
from elasticmm_client.trial import TrialReport
from tests.checkpoints import build_checkpoint
from tests.integration.asking import make_questions
from tests.integration.running import Running, cluster
from tests.integration.test_switching import Load, check_answers

pytestmark = pytest.mark.cluster

NUM_ANSWERS = 4  # of each arm, before it is ended


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("models") / "first", "first", intermediate_size=2048)


@pytest.fixture
def running(model: Path, tmp_path: Path) -> Iterator[Running]:
    options = ["--dtype", "float32", "--threads", "1", "--kv-blocks", "300", "--instances", "3"]
    with cluster(tmp_path / "state", model, "coupled", *options, "--policy", "emp", "--slo", "60,10") as up:
        yield up


@pytest.fixture
def admin(running: Running) -> Iterator[AdminClient]:
    with AdminClient(running.address, (running.state_dir / "token").read_text().strip()) as client:
        yield client


def trial_of(running: Running, admin: AdminClient) -> TrialReport:
    """Once both arms have answered their own requests."""
    running.wait_until(
        lambda _: all(arm.good >= NUM_ANSWERS for arm in admin.trial_report().arms), timeout_s=240
    )
    return admin.trial_report()


def test_arms_under_load_change_no_token(running: Running, admin: AdminClient, model: Path) -> None:
    asked = make_questions(seed=3, count=6)
    load = Load(running, asked, num_streams=4)
    try:
        admin.start_trial("coupled", 0.34, "x")
        report = trial_of(running, admin)
        admin.stop_trial()
        with pytest.raises(InvalidRequest, match="no experiment runs"):
            admin.trial_report()
        admin.start_trial("static:equal", 0.34, "x")
        admin.stop_trial()
    finally:
        answers = load.end()
    assert [(arm.policy, len(arm.instance_ids), arm.late) for arm in report.arms] == [
        ("emp", 2, 0),
        ("coupled", 1, 0),
    ]
    assert {each.arm for each in admin.plan().instances} == {""}
    check_answers(answers, asked, model)
    running.wait_until(lambda _: all(each.state == "serving" for each in admin.plan().instances))
    running.assert_idle()


def test_the_only_instance_of_an_arm_is_killed(running: Running, admin: AdminClient, model: Path) -> None:
    asked = make_questions(seed=4, count=6)
    admin.start_trial("coupled", 0.34, "x")
    (victim,) = admin.trial_report().arms[1].instance_ids
    load = Load(running, asked, num_streams=4)
    try:
        trial_of(running, admin)
        os.kill(running.pids[victim], signal.SIGKILL)
        running.wait_until(lambda _: admin.trial_report().arms[1].crossed >= NUM_ANSWERS, timeout_s=240)
        report = admin.stop_trial()
    finally:
        answers = load.end()
    assert [arm.unserved for arm in report.arms] == [0, 0]
    check_answers(answers, asked, model)
    running.wait_until(lambda _: all(each.state == "serving" for each in admin.plan().instances))
    running.assert_idle()
