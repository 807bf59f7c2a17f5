"""elasticmm migrate: moves a running request to another decode instance."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from cli.exits import USAGE, fail, failures, print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME, find_state_dir


def run(
    request_id: Annotated[str, typer.Argument(help="As the client gave it, or was told it.")],
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
    from cli.endpoint import find_endpoint
    from elasticmm_client.admin import AdminClient

    try:
        endpoint = find_endpoint(find_state_dir(state_dir, name), address, token_file)
    except ValueError as error:
        fail(str(error), USAGE)
    with failures(as_json=as_json), AdminClient(endpoint.address, endpoint.token) as admin:
        moved = admin.migrate(request_id, to)
    if as_json:
        print_json({"request_id": request_id, **dataclasses.asdict(moved)})
    else:
        print(
            f"moved from {moved.from_instance} to {moved.to_instance} by {moved.transport}: "
            f"{moved.size_bytes / 2**20:.1f} MiB, stood still {moved.pause_ms:.1f} ms"
        )
