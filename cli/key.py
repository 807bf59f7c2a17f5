"""elasticmm key: API keys for tenants' files."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from cli.options import JsonOption
from coordinator.access.principal import Right


def run(
    action: Annotated[Literal["new"], typer.Argument(help="new: makes a key.")],  # noqa: ARG001  (checked by typer)
    *,
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Whose key it is to be.")] = "NAME",
    right: Annotated[
        list[Right] | None, typer.Option(help="What it allows; repeatable. Default: infer.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Makes an API key. The output is for a tenants' file, which knows a key by its digest only.

    The key itself stands on the error stream, this once.
    """
    import json

    from cli.exits import print_json
    from coordinator.access.keys import digest_of, new_key

    key = new_key()
    rights = [each.value for each in dict.fromkeys(right or [Right.INFER])]
    if as_json:
        print_json({"key": key, "sha256": digest_of(key), "tenant": tenant, "rights": rights})
        return
    print(f"key: {key}", file=sys.stderr, flush=True)
    print(f"[[tenants.{json.dumps(tenant, ensure_ascii=False)}.keys]]")
    print(f'sha256 = "{digest_of(key)}"')
    print(f"rights = {json.dumps(rights)}")
