"""`python -m dataplane.host`: the process.

SIGTERM and SIGINT stop the instance servers and then the host (with WEFTKIT_HOST_KEEP=1 they run
on); SIGHUP ends the host alone, for an upgrade: the next host adopts what runs. After SIGKILL it
does so too.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import structlog

from dataplane.host.binaries import BinaryError
from dataplane.host.host import Host
from dataplane.host.settings import HostSettings, SettingsError, settings_from
from dataplane.observe import log as logs

EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h: starting again will not help

log = structlog.get_logger("host")


def main() -> int:
    """Run until told to end."""
    try:
        settings = settings_from()
    except (SettingsError, BinaryError) as error:
        sys.stderr.write(f"dataplane.host: {error}\n")
        return EXIT_CONFIGURATION
    logs.configure(settings.log_level)
    return asyncio.run(_run(settings))


async def _run(settings: HostSettings) -> int:
    loop = asyncio.get_running_loop()
    ends = asyncio.Event()
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        received.append(number)
        ends.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal, number)
    host = Host(settings)
    log.info("host_started", host=settings.host_name, postgres=str(settings.postgres_bin))

    def stops_servers() -> bool:
        stops = signal.SIGHUP not in received and not settings.keeps_servers
        log.info("host_ends", stops_servers=stops)
        return stops

    await host.run(ends, stops_servers)
    log.info("host_ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
