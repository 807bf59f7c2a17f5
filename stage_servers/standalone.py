"""A stage server as a program of its own: config as JSON on the input, readiness on a pipe.

python -m stage_servers.standalone PIPE < config.json
"""

from __future__ import annotations

import json
import sys

from stage_servers.config import StageConfig
from stage_servers.forkserver import become_stage, die_with_parent


def main() -> None:
    die_with_parent()
    config = StageConfig.from_json(json.load(sys.stdin))
    become_stage(config, None, int(sys.argv[1]))


if __name__ == "__main__":
    main()
