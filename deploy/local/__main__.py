"""`python -m deploy.local up|down|status|run`."""

from __future__ import annotations

import os
import signal
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
EXIT_SIGNAL = 128  # as the shell has it: plus the number of the signal


def main(arguments: list[str]) -> int:
    """Do one command; return the exit status."""
    if len(arguments) != 1 or arguments[0] not in COMMANDS:
        print("usage: python -m deploy.local up|down|status|run", file=sys.stderr)
        return 64
    try:
        status = COMMANDS[arguments[0]](dict(os.environ))
        sys.stdout.flush()
        return status
    except commands.ERRORS as error:
        print(f"weftkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nwhat was begun goes on in the background; `make status`", file=sys.stderr)
        return EXIT_SIGNAL + signal.SIGINT
    except BrokenPipeError:
        # `up | head`: who read us has enough. The interpreter's last flush must not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SIGNAL + signal.SIGPIPE
    except OSError as error:
        print(f"weftkit: {error.filename or 'failed'}: {error.strerror}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
