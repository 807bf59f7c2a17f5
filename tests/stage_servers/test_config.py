"""A stage server's settings survive JSON, and bad ones are named."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from core.stages import ModalityGroup, Stage
from stage_servers.config import StageConfig
from tests.certificates import Authority

MINIMAL: dict[str, Any] = {"model": "/models/m", "coordinator": "127.0.0.1:1", "token": "t"}


def test_round_trip() -> None:
    config = StageConfig(
        model=Path("/models/m"),
        coordinator="127.0.0.1:1",
        token="t",
        roles=frozenset({Stage.ENCODE, Stage.DECODE}),
        group=ModalityGroup.TEXT,
        cores=(0, 1),
        kv_blocks=7,
        checksums=True,
    )
    assert StageConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_defaults_are_the_coupled_server() -> None:
    assert StageConfig.from_json(MINIMAL).roles == frozenset(Stage)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"token": ""}, "token"),
        ({"roles": "xyz"}, "roles"),
        ({"transport": "pigeon"}, "transport"),
        ({"dtype": "int3"}, "dtype"),
        ({"attention": "magic"}, "attention"),
        ({"device": "tpu"}, "device"),
        ({"device": "auto"}, "device"),
        ({"device": "cuda:"}, "device"),
        ({"log_level": "loud"}, "log_level"),
        ({"chunk_tokens": 0}, "chunk_tokens"),
        ({"prompt_order": "last"}, "prompt_order"),
        ({"kv_blocks": 0}, "kv_blocks"),
        ({"cache_policy": "mru"}, "cache_policy"),
        ({"cache_host_mib": -1}, "cache_host_mib"),
        ({"cache_ttl_s": 0}, "cache_ttl_s"),
        ({"pull_timeout_s": -1}, "pull_timeout_s"),
        ({"cores": []}, "cores"),
        ({"port": 70000}, "port"),
        ({"speed": "fast"}, "speed"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}:"):
        StageConfig.from_json(MINIMAL | change)


@pytest.mark.parametrize(
    ("host", "advertise", "public"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("10.0.0.7", "gpu-1", "gpu-1"),
        ("0.0.0.0", "gpu-1", "gpu-1"),
        ("0.0.0.0", None, socket.gethostname()),
    ],
)
def test_peers_are_given_a_name_they_can_reach(host: str, advertise: str | None, public: str) -> None:
    assert StageConfig.from_json(MINIMAL | {"host": host, "advertise": advertise}).public_host == public


@pytest.mark.parametrize("field", ["model", "coordinator", "token"])
def test_missing_settings_are_named(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: is missing"):
        StageConfig.from_json({name: value for name, value in MINIMAL.items() if name != field})


def test_tls_settings_survive_json(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue(expected="stage")
    values = {"tls_cert": str(files.cert), "tls_key": str(files.key), "tls_ca": str(files.ca)}
    config = StageConfig.from_json(MINIMAL | values | {"tls_name": "stage"})
    assert config.tls == files
    assert StageConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert StageConfig.from_json(MINIMAL).tls is None


@pytest.mark.parametrize("missing", ["tls_cert", "tls_key", "tls_ca"])
def test_tls_settings_come_together(tmp_path: Path, missing: str) -> None:
    files = Authority(tmp_path).issue()
    values = {"tls_cert": str(files.cert), "tls_key": str(files.key), "tls_ca": str(files.ca)}
    del values[missing]
    with pytest.raises(ValueError, match=f"^{missing}: is missing"):
        StageConfig.from_json(MINIMAL | values)


def test_a_tls_name_needs_certificates() -> None:
    with pytest.raises(ValueError, match="^tls_cert: is missing"):
        StageConfig.from_json(MINIMAL | {"tls_name": "stage"})


def test_a_missing_tls_file_is_named(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue()
    values = {"tls_cert": str(files.cert), "tls_key": "/no/such", "tls_ca": str(files.ca)}
    with pytest.raises(ValueError, match="^tls_key: /no/such cannot be read"):
        StageConfig.from_json(MINIMAL | values)
