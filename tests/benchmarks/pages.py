"""Lists and details of the API and the dashboard among 1,000 tenants and 10,000 instances.

Each page is asked in turn with `/healthz`, a bare Django view behind the same middlewares, in one
process without a network: what is compared is our own work and that of the database. The ratios
of the 95th percentiles are what can be compared between machines.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

from tests.servers import PostgresServer, run_postgres, temporary_home

WORDS = "pages"
ROUNDS = 100
BARE = "/healthz"
OWNER = "bench@example.org"


def report(rounds: int = ROUNDS) -> str:
    """Return the table."""
    with temporary_home("wkp") as home, run_postgres(home) as server:
        times = _measured(server, rounds)
    bare = _p95(times[BARE])
    lines = [f"pages (of {rounds} each; ms)", f"{'':52}{'p50':>8}{'p95':>8}{'p95 / bare':>12}"]
    for address, taken in times.items():
        p95 = _p95(taken)
        middle = statistics.median(taken)
        lines.append(f"  {address:50}{middle:8.2f}{p95:8.2f}{p95 / bare:12.1f}")
    return "\n".join(lines) + "\n\n"


def _measured(server: PostgresServer, rounds: int) -> dict[str, list[float]]:
    server.create_database("pages")
    os.environ["DJANGO_SETTINGS_MODULE"] = "weftkit_site.settings.test"
    os.environ["WEFTKIT_LOG_LEVEL"] = "ERROR"  # not a line for each request
    os.environ["WEFTKIT_DATABASE_URL"] = server.dsn("pages")
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    client, addresses = _scene()
    times: dict[str, list[float]] = {address: [] for address in (BARE, *addresses)}
    for number in range(rounds + 2):
        for address, taken in times.items():
            began = time.perf_counter()
            status = client.get(address).status_code
            if number >= 2:  # the first ones load templates and plans
                taken.append((time.perf_counter() - began) * 1000)
            assert status == 200, (address, status)
    return times


def _scene() -> tuple[Any, list[str]]:
    """Return a browser in which the owner of the first tenant is signed in, and what it asks."""
    from django.test import Client

    from tenants.accounts.models import User
    from tenants.instances.models import Instance
    from tests.factories import population
    from tests.tenants.test_scale import MANY_INSTANCES, MANY_TENANTS, PAGES

    owner = User.objects.create_user(OWNER, "correct horse battery staple")
    tenant = population(MANY_TENANTS, MANY_INSTANCES, owner)[0]
    first = Instance.objects.filter(tenant=tenant)[0]
    client = Client()
    client.force_login(owner)
    names = {"tenant": tenant.handle, "handle": first.handle}
    return client, [address.format(**names) for address in PAGES]


def _p95(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=20)[-1]
