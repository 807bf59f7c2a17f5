"""What a worker is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.front.reach import Reach, ReachTls
from coordinator.front.settings import FrontSettings, parse_settings
from tests.certificates import Authority


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    files = Authority(tmp_path).issue(expected="door")
    reach = Reach("h:1", ReachTls(ca="ca", name="door"))
    settings = FrontSettings(
        reach,
        "::",
        7,
        files,
        tls_client_cert=False,
        drain_s=0.0,
        name="http-3",
        metrics_port=0,
        allow_hosts=("*",),
    )
    assert parse_settings(settings.to_line()) == settings
    assert parse_settings(FrontSettings(Reach("h:1")).to_line()) == FrontSettings(Reach("h:1"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 65536),
        ("metrics_port", -1),
        ("drain_s", -1.0),
        ("stalled_s", 0.0),
        ("log_format", "xml"),
        ("allow_hosts", ("a:1",)),
        ("max_connections", 0),
    ],
)
def test_what_is_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        FrontSettings(Reach("h:1"), **{name: value})
