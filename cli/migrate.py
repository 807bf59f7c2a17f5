"""elasticmm migrate: moves a running request to another decode instance."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from cli.connection import admin_of, endpoint_of
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME


def run(
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST", help="As the client gave it, or was told it.")
    ],
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="INSTANCE", help="Default: the least loaded with room.")
    ] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Moves the decoding of REQUEST_ID to another instance; its stream goes on."""
    endpoint = endpoint_of(name, state_dir, address, token_file, as_json=as_json)
    with admin_of(endpoint, as_json=as_json) as admin:
        moved = admin.migrate(request_id, to)
    if as_json:
        print_json({"request_id": request_id, **dataclasses.asdict(moved)})
    else:
        print(
            f"moved from {moved.from_instance} to {moved.to_instance} by {moved.transport}: "
            f"{moved.size_bytes / 2**20:.1f} MiB, stood still {moved.pause_ms:.1f} ms"
        )
