import json
from pathlib import Path

import pytest

from cli.launch.plan import LaunchPlan, name_instances, new_cluster_id
from core.topology import parse_topology
from tests.certificates import Authority


def test_names_instances_by_roles() -> None:
    instances = parse_topology("e1pd2").instances
    assert name_instances(instances) == ("e-0", "pd-0", "pd-1")


def test_cluster_ids_differ_and_fit_file_names() -> None:
    assert new_cluster_id("a b-c") != new_cluster_id("a b-c")
    assert new_cluster_id("a b-c").startswith("a_b_c_")


def test_stage_configs_take_what_was_given_and_else_the_defaults(model: Path) -> None:
    plan = LaunchPlan("c", model, "e1p1d1", cores=(0, 1, 2), threads=1, kv_blocks=7, checksums=True)
    configs = plan.stage_configs("host:1", "secret")
    assert [config.cores for config in configs] == [(0,), (1,), (2,)]
    assert {(config.kv_blocks, config.checksums) for config in configs} == {(7, True)}
    assert {config.chunk_tokens for config in configs} == {512}
    assert {(config.coordinator, config.token, config.cluster) for config in configs} == {
        ("host:1", "secret", "c")
    }


def test_hands_devices_out_in_turn(model: Path) -> None:
    plan = LaunchPlan("c", model, "coupled", 3, devices=("cuda:0", "cuda:1"))
    configs = plan.stage_configs("h:1", "t")
    assert [config.device for config in configs] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [config.device_share for config in configs] == [0.5, 1.0, 0.5]
    assert not plan.has_shared_cores


@pytest.mark.parametrize(
    ("devices", "profile", "counts"),
    [
        (("cpu",), None, None),
        (("emulated:cpu-demo", "emulated:cpu-demo"), None, "cpu-demo"),
        (("emulated:cpu-demo",), "cpu-120m", "cpu-120m"),
        (("emulated:cpu-demo", "emulated:cpu-120m"), "cpu-demo", "cpu-demo"),
    ],
)
def test_policies_reckon_with_what_devices_are_emulated_by(
    model: Path, devices: tuple[str, ...], profile: str | None, counts: str | None
) -> None:
    plan = LaunchPlan("c", model, devices=devices, profile=profile)
    assert plan.policy_words == ([] if counts is None else ["--profile", counts])


def test_the_coordinator_weighs_caches_unless_told_otherwise(model: Path) -> None:
    assert LaunchPlan("c", model).policy_words == []
    told = LaunchPlan("c", model, policy="emp", cache_aware=False)
    assert told.policy_words == ["--policy", "emp", "--no-cache-aware"]
    assert LaunchPlan.from_json(told.to_json()) == told


def test_the_coordinator_is_told_which_pieces_are_off(model: Path) -> None:
    told = LaunchPlan("c", model, policy="emp", without=("search", "hysteresis"))
    assert told.policy_words == ["--policy", "emp", "--without", "search", "--without", "hysteresis"]
    assert LaunchPlan.from_json(told.to_json()) == told
    with pytest.raises(ValueError, match="^without: pieces: serach .there are balancer-proactive, "):
        LaunchPlan("c", model, policy="emp", without=("serach",))
    with pytest.raises(ValueError, match="^without: fixed has no pieces that could be switched off, emp has"):
        LaunchPlan("c", model, without=("search",))


def test_the_coordinator_is_told_what_to_try(model: Path) -> None:
    told = LaunchPlan("c", model, policy="emp", ab="static:equal:0.3")
    assert told.policy_words == ["--policy", "emp", "--ab", "static:equal:0.3"]
    assert LaunchPlan("c", model, shadow="emp").policy_words == ["--shadow", "emp"]
    assert LaunchPlan.from_json(told.to_json()) == told


def test_devices_of_several_profiles_need_one_that_counts(model: Path) -> None:
    with pytest.raises(ValueError, match="^profile: devices are emulated by cpu-demo and cpu-120m"):
        LaunchPlan("c", model, devices=("emulated:cpu-demo", "emulated:cpu-120m"))


def test_tells_when_cores_are_shared(model: Path) -> None:
    assert LaunchPlan("c", model, "e1p1d1", cores=(0, 1)).has_shared_cores
    assert not LaunchPlan("c", model, "e1p1d1", cores=(0, 1, 2)).has_shared_cores


def test_json_round_trip(model: Path) -> None:
    plan = LaunchPlan("c", model, "ep1d1", cores=(3, 4), dtype="bfloat16", allow_private_urls=True)
    assert LaunchPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_tls_reaches_every_stage_server(model: Path, tmp_path: Path) -> None:
    files = Authority(tmp_path / "tls").issue(expected="stage")
    names = {"tls_cert": files.cert, "tls_key": files.key, "tls_ca": files.ca, "tls_name": "stage"}
    plan = LaunchPlan("c", model, "e1p1d1", **names)
    assert LaunchPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert [config.tls for config in plan.stage_configs("h:1", "t")] == [files] * 3


def test_tenants_and_audit_log_reach_the_coordinator(model: Path, tmp_path: Path) -> None:
    file, log = tmp_path / "tenants.toml", tmp_path / "audit"
    file.write_text("tenants.a.may_share_cache = true")
    plan = LaunchPlan("c", model, tenants=file, audit_log=log)
    assert LaunchPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.door_words == ["--tenants", str(file), "--audit-log", str(log)]
    file.write_text("tenants.a.may_share_cache = 1")
    with pytest.raises(ValueError, match="tenants.toml: tenants.a.may_share_cache: should be true or false"):
        LaunchPlan("c", model, tenants=file)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"topology": "e1"}, "topology"),
        ({"topology": "e1p1d1", "num_instances": 2}, "instances"),
        ({"port": 70_000}, "port"),
        ({"dtype": "int3"}, "dtype"),
        ({"transport": "pigeon"}, "transport"),
        ({"threads": 0}, "threads"),
        ({"tls_cert": Path("/no/such")}, "tls_key"),
        ({"model": Path("/no/such")}, "model"),
        ({"attention": "magic"}, "attention"),
        ({"heartbeat_timeout": 0.5}, "heartbeat_timeout_s"),
        ({"allow_hosts": ("a b",)}, "allow_hosts"),
        ({"devices": ("tpu",)}, "device"),
        ({"log_level": "LOUD"}, "log_level"),
        ({"policy": "nobody"}, "policy"),
        ({"shadow": "nobody"}, "shadow"),
        ({"ab": "nobody:0.5"}, "ab"),
        ({"ab": "emp:3"}, "ab"),
        ({"shadow": "emp", "ab": "emp"}, "ab, shadow"),
        ({"profile": "nothing"}, "nothing"),
        ({"devices": ("cpu", "emulated:nothing")}, "nothing"),
    ],
)
def test_bad_settings_are_named(model: Path, values: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        LaunchPlan(**{"cluster": "c", "model": model, **values})  # type: ignore[arg-type]
