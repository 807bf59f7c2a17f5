"""The limit of open files follows what is to be served."""

import resource

import pytest

from core.open_files import allow_connections

Limits = tuple[int, int]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ((1024, 4096), (1512, 4096)),
        ((1024, 1400), (1400, 1400)),
        ((1024, resource.RLIM_INFINITY), (1512, resource.RLIM_INFINITY)),
        ((2000, 4096), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_it_is_raised_as_far_as_may_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, found: Limits, wanted: Limits | None
) -> None:
    set_to: list[Limits] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: found)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    allow_connections(1000)
    assert set_to == ([] if wanted is None else [wanted])
    assert bool(caplog.records) == (found == (1024, 1400))
