"""elasticmm why: the policies' newest decisions and the numbers they weighed."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import admin_of, endpoint_of
from cli.exits import print_json
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from elasticmm_client.plan import Decision


def run(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="SUBJECT", help="A request, an instance or 'cluster'. Default: all but requests."
        ),
    ] = None,
    *,
    dispatches: Annotated[
        bool, typer.Option("--dispatches", help="Without SUBJECT: also where requests went.")
    ] = False,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Of the policy set in the shadow, which are not acted on.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, help="Show the newest so many.")
    ] = 20,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Shows why the policies did what they did, oldest first, and the numbers they weighed."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        decisions = admin.why(subject, limit, dispatches=dispatches or subject is not None, of_shadow=shadow)
    if as_json:
        print_json({"decisions": [dataclasses.asdict(each) for each in decisions]})
    elif decisions:
        print("\n".join(_lines(decisions)))
    elif subject is None and not dispatches:
        print("no decision about what instances play is kept (where requests went: --dispatches)")
    else:
        print("no decision is kept" + (f" about {subject}" if subject else ""))


def _lines(decisions: Sequence[Decision]) -> Iterator[str]:
    """What was chosen, and below it the numbers that were weighed: once for all that follow from the same."""
    ages = [f"{each.age_s:.1f} s ago" for each in decisions]
    widths = [max(map(len, column)) for column in (ages, *zip(*map(_names, decisions), strict=True))]
    shown: Mapping[str, float] = {}
    for age, decision in zip(ages, decisions, strict=True):
        piece, subject = _names(decision)
        start = f"{age:>{widths[0]}}  {piece:<{widths[1]}}  {subject:<{widths[2]}}  "
        yield start + decision.choice
        if decision.numbers and decision.numbers != shown:
            weighed = ", ".join(f"{key} {value:.4g}" for key, value in sorted(decision.numbers.items()))
            yield " " * len(start) + weighed
        shown = decision.numbers or shown


def _names(decision: Decision) -> tuple[str, str]:
    return piece_of(decision), decision.subject


def piece_of(decision: Decision) -> str:
    """The piece of policy, and whose where it is not the main set's."""
    whose = "shadow: " if decision.is_shadow else f"{decision.arm}: " if decision.arm else ""
    return whose + decision.piece
