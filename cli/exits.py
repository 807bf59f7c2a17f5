"""Exit codes, and how failures become them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from elasticmm_client.errors import ElasticMMError, InvalidRequest, NotRunning, Overloaded

FAILED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130


# How gRPC's reasons read where only one end speaks TLS, or a certificate does not fit.
_TLS_WORDS = ("Socket closed", "erification", "andshake", "SSL")


@contextmanager
def failures(*, as_json: bool = False) -> Iterator[None]:
    """Prints a failed call and exits 1, or 3 where nobody answers."""
    try:
        yield
    except ElasticMMError as error:
        if as_json:
            print_json({"error": describe(error)})
        print(f"elasticmm: {error}{_hint(error)}", file=sys.stderr)
        raise typer.Exit(UNREACHABLE if isinstance(error, NotRunning) else FAILED) from error


def _hint(error: ElasticMMError) -> str:
    """What to do about it, where the error itself cannot know."""
    if isinstance(error, NotRunning):
        if any(word in error.message for word in _TLS_WORDS):
            return " (does the cluster speak TLS, and do the certificates fit? see elasticmm --help)"
        return " (is the cluster up? start one with: elasticmm up)"
    if error.code != "UNAUTHENTICATED":
        return ""
    ways = "--token-file or ELASTICMM_TOKEN" if "cluster token" in error.message else "ELASTICMM_API_KEY"
    return f" (give it with {ways})"


def describe(error: ElasticMMError) -> dict[str, object]:
    """The error as JSON: code, message, and field or retry_after_s where they apply."""
    described: dict[str, object] = {"code": error.code, "message": error.message}
    if isinstance(error, InvalidRequest):
        described["field"] = error.field
    if isinstance(error, Overloaded):
        described["retry_after_s"] = error.retry_after_s
    return described


def fail(message: str, code: int = FAILED, *, as_json: bool = False) -> NoReturn:
    """Said by the command itself, so without a code of gRPC's."""
    if as_json:
        print_json({"error": {"code": None, "message": message}})
    print(f"elasticmm: {message}", file=sys.stderr)
    raise typer.Exit(code)


def print_json(value: object) -> None:
    """One object on one line; null for what is no finite number, which JSON does not have."""
    import json

    print(json.dumps(_finite(value), ensure_ascii=False), flush=True)


def _finite(value: object) -> object:
    match value:
        case dict():
            return {key: _finite(each) for key, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
        case float() if not math.isfinite(value):
            return None
    return value
