"""elasticmm drain: empties an instance, for maintenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import admin_of, endpoint_of
from cli.exits import fail, print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME
from elasticmm_client.errors import DeadlineExceeded

if TYPE_CHECKING:
    from elasticmm_client import AdminClient


def run(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="As 'elasticmm status' names it.")],
    *,
    timeout_s: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0, help="Give up waiting after so long; it stays drained."
        ),
    ] = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Moves all work off INSTANCE and gives it no more; returns when it is empty."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        try:
            admin.drain(instance, timeout_s)
        except DeadlineExceeded:
            if not _is_drained(admin, instance):
                raise
            left = f"{instance} is not empty after {timeout_s:g} s; it gets no more work until 'resume'"
            fail(left, as_json=as_json)
    if as_json:
        print_json({"instance": instance})
    else:
        print(f"{instance} is empty and gets no more work")


def _is_drained(admin: AdminClient, name: str) -> bool:
    return any(each.is_drained for each in admin.plan().instances if each.id == name)
