"""`python -m bench [NAME [ARGS]]`: one measurement, `up` when none is named."""

from __future__ import annotations

import importlib
import sys

NAMES = ("up", "store", "api", "codec", "scheduler", "controllers", "node", "simulated_nodes")


def main() -> None:
    name, *arguments = sys.argv[1:] or ["up"]
    if name not in NAMES:
        sys.exit(f"there is no measurement {name!r}; there are {', '.join(NAMES)}")
    sys.argv = [f"bench {name}", *arguments]
    importlib.import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main()
