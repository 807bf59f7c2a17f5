"""ServeGen's clients: per client a table of 10-minute windows and distributions of 6-hour ones."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulator.workload.arrivals import Family, renewal
from simulator.workload.errors import WorkloadError, check
from simulator.workload.lines import MOST_WHOLE, number, open_text, read_json, read_rows, whole
from simulator.workload.request import Picture, Request

WINDOW_S = 600.0
_DATASET_WINDOW_S = 21600
_FIELDS = ("text_tokens", "image_count", "image_tokens", "output_tokens")
_MOST = {"image_count": 1000}
# No sizes are given: a square of as many patches of 28 x 28 pixels as it has tokens.
_TOKEN_PX = 28
_FAMILIES: dict[str, Family] = {"Gamma": "Gamma", "Weibull": "Weibull"}


@dataclass(frozen=True, slots=True)
class _Window:
    start_s: float
    rate_rps: float
    family: Family | None  # None: no traffic
    shape: float


class Distribution:
    """Values with their probabilities."""

    def __init__(self, text: str, place: str, most: int = MOST_WHOLE) -> None:
        try:
            table = ast.literal_eval(text)
            self._values = [int(value) for value in table]
            shares = np.array([float(table[value]) for value in table])
        except (
            ValueError,
            SyntaxError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
            MemoryError,
        ):
            raise WorkloadError(f"{place}: should be a table of numbers and probabilities") from None
        is_fine = len(shares) > 0 and shares.min() >= 0 and 0 < shares.sum() < np.inf
        check(is_fine, place, "has no probabilities")
        for value in self._values:
            check(0 <= value <= most, place, f"values should be from 0 to {most:,}, one is {value!r:.40}")
        self._cdf = np.cumsum(shares / shares.sum())

    def draw(self, rng: np.random.Generator) -> int:
        return self._values[min(int(np.searchsorted(self._cdf, rng.random())), len(self._values) - 1)]


_Lengths = dict[str, Distribution]


def load(
    folder: Path, clients: Sequence[int], start_s: float, duration_s: float, *, max_tokens: int, seed: int
) -> list[Request]:
    """Requests of these clients (all if empty) in a stretch of the day, merged; seconds from its start."""
    numbers = sorted(clients) if clients else _present(folder)
    requests: list[Request] = []
    for client in numbers:
        requests += _client(folder, client, start_s, duration_s, max_tokens=max_tokens, seed=seed)
    return sorted(requests, key=lambda each: (each.arrival_s, each.request_id))


def _client(
    folder: Path, client: int, start_s: float, duration_s: float, *, max_tokens: int, seed: int
) -> list[Request]:
    datasets = _datasets(folder / f"chunk-{client}-dataset.json")
    requests: list[Request] = []
    for window in _windows(folder / f"chunk-{client}-trace.csv"):
        is_inside = start_s - WINDOW_S < window.start_s < start_s + duration_s
        if window.family is None or not window.rate_rps or not is_inside:
            continue
        rng = np.random.default_rng((seed, client, int(window.start_s)))
        for offset_s in renewal(rng, window.rate_rps, WINDOW_S, window.family, window.shape):
            since_s = window.start_s + offset_s - start_s
            lengths = datasets[int(window.start_s // _DATASET_WINDOW_S) % len(datasets)]
            request = _request(rng, lengths, f"c{client}-{len(requests)}", since_s, max_tokens)
            if 0 <= since_s < duration_s:
                requests.append(request)
    return requests


def _request(
    rng: np.random.Generator, lengths: _Lengths, request_id: str, arrival_s: float, max_tokens: int
) -> Request:
    pictures = []
    for _ in range(lengths["image_count"].draw(rng)):
        tokens = lengths["image_tokens"].draw(rng)
        side = max(1, round(_TOKEN_PX * tokens**0.5))
        if tokens:
            pictures.append(Picture(side, side, tokens))
    return Request(
        request_id=request_id,
        arrival_s=arrival_s,
        text_tokens=max(1, lengths["text_tokens"].draw(rng)),
        output_tokens=min(max_tokens, max(1, lengths["output_tokens"].draw(rng))),
        max_tokens=max_tokens,
        pictures=tuple(pictures),
        source="image" if pictures else "text",
    )


def _present(folder: Path) -> list[int]:
    """Numbers of the clients whose files are in the folder."""
    names = [path.name.split("-")[1] for path in folder.glob("chunk-*-trace.csv")]
    check(bool(names), str(folder), "holds no chunk-N-trace.csv")
    return sorted(int(name) for name in names if name.isdigit())


def _windows(path: Path) -> list[_Window]:
    windows: list[_Window] = []
    for place, row in read_rows(path):
        check(len(row) == 6, place, f"should have 6 columns, has {len(row)}")
        start_s = number(row[0], place, "start")
        check(not windows or start_s > windows[-1].start_s, place, "the time is not after the line above")
        windows.append(_window(row, place, start_s))
    check(bool(windows), str(path), "is empty")
    return windows


def _window(row: list[str], place: str, start_s: float) -> _Window:
    """The shape is kept and the mean gap taken from the rate."""
    family = row[3].strip()
    if not family:
        return _Window(start_s, 0.0, None, 1.0)
    check(family in _FAMILIES, place, f"the pattern should be Gamma or Weibull, is {family!r:.40}")
    shape = number(row[4], place, "shape")
    check(shape > 0, place, "shape should be more than zero")
    return _Window(start_s, number(row[1], place, "rate"), _FAMILIES[family], shape)


def _datasets(path: Path) -> list[_Lengths]:
    """By 6-hour window, in order."""
    with open_text(path) as file:
        tables = read_json(file.read(), str(path))
    check(isinstance(tables, dict), str(path), "should be an object by seconds")
    assert isinstance(tables, dict)
    check(bool(tables), str(path), "is empty")
    seconds = {whole(key, str(path), "the start of a window"): key for key in tables}
    datasets = []
    for _, key in sorted(seconds.items()):
        lacking = [name for name in _FIELDS if not isinstance(tables[key], dict) or name not in tables[key]]
        check(not lacking, f"{path}: {key}", f"lacks {', '.join(lacking)}")
        datasets.append(
            {
                name: Distribution(tables[key][name], f"{path}: {key}.{name}", _MOST.get(name, MOST_WHOLE))
                for name in _FIELDS
            }
        )
    return datasets
