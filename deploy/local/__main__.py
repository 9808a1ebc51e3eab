"""`python -m deploy.local up|down|status|run`."""

from __future__ import annotations

import os
import sys

from deploy.local import commands

# `supervise` is `run` for the guard: without table and without a change of user.
COMMANDS = {
    "up": commands.up,
    "down": commands.down,
    "status": commands.show_status,
    "run": commands.run,
    "supervise": commands.supervise,
}


def main(arguments: list[str]) -> int:
    """Do one command; return the exit status."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print("usage: python -m deploy.local up|down|status|run", file=sys.stderr)
        return 64
    try:
        return COMMANDS[arguments[0]](dict(os.environ))
    except commands.ERRORS as error:
        print(f"weftkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nit goes on in the background; `make down` stops it", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
