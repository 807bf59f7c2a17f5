"""Clusters of emulated devices: real servers and transfers, a profile's time, tokens by a function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.profile_file import write_profile
from elasticmm_client import AdminClient
from tests.checkpoints import build_checkpoint
from tests.integration.asking import ask_all, make_questions
from tests.integration.running import cluster
from tests.quick_profile import make_profile

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("models") / "first", "first")


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profiles") / "quick.json"
    write_profile(replace(make_profile(), kv_tokens=16 * 400, embedding_tokens=16 * 200), path)
    return path


def answers(model: Path, profile: Path, state: Path, topology: str, *options: str) -> list[tuple[int, ...]]:
    asked = make_questions(seed=5, count=6)
    with cluster(state, model, topology, "--device", f"emulated:{profile}", *options) as running:
        results = ask_all(running.client, asked, max_tokens=60, seed=1)
        assert {each.device for each in running.status().instances} == {f"emulated:{profile}"}
        assert {each.total_kv_blocks for each in running.status().instances} == {400}
        assert {each.max_sequences for each in running.status().instances} == {make_profile().max_sequences}
        running.assert_idle()
    return [result.token_ids for result in results]


def test_topologies_and_time_scales_make_the_same_tokens(model: Path, profile: Path, tmp_path: Path) -> None:
    alone = answers(model, profile, tmp_path / "a", "coupled")
    apart = answers(model, profile, tmp_path / "b", "e1p2d2", "--time-scale", "0.1", "--transport", "grpc")
    assert alone == apart
    assert all(len(tokens) == 60 for tokens in alone)


def test_the_plan_shows_the_pace_of_every_instance(model: Path, profile: Path, tmp_path: Path) -> None:
    options = ("--device", f"emulated:{profile}", "--profile", str(profile), "--time-scale", "10")
    with (
        cluster(tmp_path / "s", model, "coupled", *options) as running,
        AdminClient(running.address, (running.state_dir / "token").read_text().strip()) as admin,
    ):
        ask_all(running.client, make_questions(seed=5, count=6), max_tokens=20, seed=1)
        (instance,) = admin.plan().instances
    for pace in (instance.decodes, instance.prefills, instance.encodes):
        assert pace.factor is not None
        assert pace.factor >= 5  # of devices at a tenth of the speed, however late the host is


def test_an_unknown_profile_is_named(model: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="nothing.json"),
        cluster(tmp_path / "s", model, "coupled", "--device", "emulated:nothing.json"),
    ):
        pass
