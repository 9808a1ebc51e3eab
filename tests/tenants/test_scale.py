"""With many tenants and instances a page costs the queries that it costs with few."""

from __future__ import annotations

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tenants.instances.models import Instance
from tenants.operations.models import Operation
from tests.factories import InstanceFactory, OperationFactory, population
from tests.tenants.cast import Cast, signed_in

MANY_TENANTS, MANY_INSTANCES = 1_000, 10_000  # ten each; then one gets 190 more
API = "/api/v1/tenants/{tenant}"
# The address and what it may cost at most, in queries; sign-in and rights are among them.
PAGES = {
    f"{API}/instances?limit=200": 8,
    f"{API}/instances/{{handle}}": 8,
    f"{API}/operations?limit=200": 8,
    f"{API}/members": 7,
    "/api/v1/tenants": 5,
    "/t/{tenant}/": 25,
    "/t/{tenant}/instances": 20,
    "/t/{tenant}/instances/{handle}": 25,
    "/t/{tenant}/operations": 20,
}


def queries(client: Client, address: str) -> int:
    """Ask twice, and return how many queries the second answer took."""
    assert client.get(address).status_code == 200, address
    with CaptureQueriesContext(connection) as captured:
        client.get(address)
    return len(captured)


def test_pages_cost_the_same_queries_with_few_and_many_rows(cast: Cast) -> None:
    alice = signed_in(cast.alice)
    tenant = population(MANY_TENANTS, MANY_INSTANCES, cast.alice)[0]
    assert Instance.objects.count() == MANY_INSTANCES
    first = Instance.objects.filter(tenant=tenant).select_related("plan")[0]
    names = {"tenant": tenant.handle, "handle": first.handle}
    addresses = {address.format(**names): most for address, most in PAGES.items()}
    with_few = {address: queries(alice, address) for address in addresses}
    more = [InstanceFactory.build(tenant=tenant, plan=first.plan) for _ in range(190)]
    Instance.objects.bulk_create(more)
    Operation.objects.bulk_create(OperationFactory.build_batch(1, instance=row)[0] for row in more)
    with_many = {address: queries(alice, address) for address in addresses}
    assert with_many == with_few
    beyond = {key: count for key, count in with_many.items() if count > addresses[key]}
    assert beyond == {}
