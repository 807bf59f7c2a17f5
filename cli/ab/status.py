"""elasticmm ab status: both arms side by side."""

from __future__ import annotations

from cli.ab.report import show
from cli.connection import admin_of, endpoint_of
from cli.options import AddressOption, JsonOption, NameOption, StateDirOption, TokenFileOption
from cli.state import DEFAULT_NAME


def run(
    *,
    address: AddressOption = None,
    as_json: JsonOption = False,
    name: NameOption = DEFAULT_NAME,
    state_dir: StateDirOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Shows how both arms met the targets, and what that took, since the start."""
    with admin_of(
        endpoint_of(name, state_dir, address, token_file, as_json=as_json), as_json=as_json
    ) as admin:
        report = admin.trial_report()
    show(report, as_json=as_json)
