"""A service id's credential through the data plane: its role follows the policies, within a second.

Also the REST API with an access token that IBM's SDK fetched from the running service.
"""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import Any

import httpx
import psycopg
import pytest
from ibm_cloud_sdk_core.authenticators import IAMAuthenticator

from tests.admin import Admin
from tests.servers import wait_until
from tests.stack import Connection, Stack

pytestmark = pytest.mark.stack


def outcome(row: Connection, statement: str) -> str:
    """Return "done", the SQLSTATE of a refusal, or "shut" where not even a connection is made."""
    try:
        with psycopg.connect(row.uri, connect_timeout=10) as connection:
            connection.execute(statement)
    except psycopg.Error as error:
        return error.sqlstate or "shut"
    return "done"


def test_a_role_follows_its_policies_in_the_running_service(admin: Admin) -> None:
    owner = admin.new_instance("relational", plan="lite")
    assert outcome(owner, "CREATE TABLE notes (t text)") == "done"
    service = admin.call("POST", "service-ids", name="app")
    subject = {"type": "service_id", "id": service["id"]}
    made = admin.call("POST", f"instances/{owner.instance}/credentials", service_id=service["id"])
    row = replace(owner, uri=made["uri"], user=made["username"], password=made["password"])
    scope = {"instance": {"value": owner.instance}}
    read, write = "SELECT count(*) FROM notes", "INSERT INTO notes VALUES ('x')"

    def expect(expected: tuple[str, str, str], what: str) -> None:
        found: tuple[str, ...] = ()

        def is_so() -> bool:
            nonlocal found
            found = tuple(outcome(row, text) for text in (read, write, "CREATE TABLE made (t int)"))
            return found == expected

        try:
            wait_until(is_so, what, 10)
        except AssertionError as error:
            raise AssertionError(f"{error}, but {found}") from None

    expect(("shut",) * 3, "nothing without a policy")
    policy = admin.call("POST", "policies", subject=subject, roles=["Reader"], scope=scope)
    expect(("done", "42501", "42501"), "a Reader reads")
    path = f"policies/{policy['id']}"
    admin.call("PATCH", path, roles=["Writer"])
    expect(("done", "done", "42501"), "a Writer writes")
    admin.call("PATCH", path, roles=["Manager"])
    expect(("done", "done", "done"), "a Manager makes tables")
    with psycopg.connect(row.uri, connect_timeout=10, autocommit=True) as connection:
        admin.call("DELETE", path)

        def is_ended() -> bool:
            try:
                connection.execute("SELECT 1")
            except psycopg.OperationalError:
                return True
            return False

        wait_until(is_ended, "the open connection is ended", 5)
    expect(("shut",) * 3, "nothing after it")


def test_ibms_sdk_works_against_the_running_service(stack: Stack, admin: Admin) -> None:
    service = admin.call("POST", "service-ids", name="sdk")
    subject = {"type": "service_id", "id": service["id"]}
    admin.call("POST", "policies", subject=subject, roles=["Viewer"])
    key = admin.call("POST", "api-keys", name="sdk", service_id=service["id"])
    root = stack.document["api"]["url"].rsplit("/api/", 1)[0]
    authenticator = IAMAuthenticator(key["token"], url=root)
    authenticator.token_manager.http_config = {"verify": stack.ca}
    request: dict[str, Any] = {"headers": {}}
    authenticator.authenticate(request)
    context = ssl.create_default_context(cafile=stack.ca)
    with httpx.Client(base_url=root, headers=request["headers"], verify=context) as client:
        assert client.get("/api/v1/tenants/demo/instances").status_code == 200
        assert client.get("/api/v1/tenants/demo/policies").status_code == 403
        admin.call("DELETE", f"api-keys/{key['id']}")
        assert client.get("/api/v1/tenants/demo/instances").status_code == 401
