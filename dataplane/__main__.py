"""`python -m dataplane [--workers N]`: the master of the data plane."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from dataplane import native
from dataplane.config import (
    EXIT_CONFIG,
    WORKERS_MAX,
    ConfigError,
    config_from,
    enabled_engines,
)
from dataplane.master import Master
from dataplane.observe import log


def main() -> int:
    """Read the settings and run the workers."""
    parser = argparse.ArgumentParser(prog="python -m dataplane", description=__doc__)
    parser.add_argument("--workers", type=int, help="default: WEFTKIT_WORKERS, else one a core")
    workers = parser.parse_args().workers
    if stale := native.stale():
        names = ", ".join(stale)
        sys.stderr.write(f"dataplane: compiled, and changed since: {names}; run `make native`\n")
        return EXIT_CONFIG
    try:
        config = config_from(enabled_engines())
        if workers is not None:
            if not 1 <= workers <= WORKERS_MAX:
                raise ConfigError(f"--workers is not between 1 and {WORKERS_MAX}: {workers}")
            config = dataclasses.replace(config, workers=workers)
    except ConfigError as error:
        print(f"dataplane: {error}", file=sys.stderr)  # noqa: T201 - before logs are set up
        return EXIT_CONFIG
    writer = log.LineWriter()
    log.configure(config.log_level, writer)
    log.get_logger("master").info("starting", compiled_modules=len(native.compiled()))
    try:
        return Master(
            config,
            lambda number: [sys.executable, "-m", "dataplane.worker", "--number", str(number)],
        ).run()
    finally:
        writer.close()


if __name__ == "__main__":
    sys.exit(main())
