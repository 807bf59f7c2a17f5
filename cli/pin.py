"""elasticmm pin: says what an instance plays, whatever the policies want."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.connection import admin_of, endpoint_of
from cli.exits import USAGE, fail, print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME
from core.stages import ModalityGroup, Stage, parse_roles


def run(
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="As 'elasticmm status' names it.")],
    what: Annotated[
        list[str],
        typer.Argument(metavar="ROLES|GROUP", help="Letters of 'epd'; text, multimodal, shared."),
    ],
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Has INSTANCE play ROLES, or serve GROUP, or both, until 'elasticmm unpin'."""
    try:
        roles, group = read_assignment(what)
    except ValueError as error:
        fail(str(error), USAGE)
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        admin.pin(instance, roles, group)
    if as_json:
        print_json({"instance": instance, "roles": roles or None, "group": group})
    else:
        print(f"{instance} is pinned to {' '.join(what)}")


def read_assignment(words: list[str]) -> tuple[tuple[str, ...], str | None]:
    """Stage names, none where no roles are given, and the group; raises ValueError."""
    known = [group.value for group in ModalityGroup]
    groups = [word.lower() for word in words if word.lower() in known]
    roles = [word for word in words if word.lower() not in known]
    if len(groups) > 1 or len(roles) > 1:
        raise ValueError(f"{' '.join(words)}: give roles once and a group once at most")
    try:
        played = parse_roles(roles[0]) if roles else frozenset()
    except ValueError:
        there = f"roles (letters of 'epd') nor a group ({', '.join(known)})"
        raise ValueError(f"{roles[0]!r} is neither {there}") from None
    names = tuple(stage.name.lower() for stage in Stage if stage in played)
    return names, groups[0] if groups else None
