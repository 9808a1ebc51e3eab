"""What the operations of one request share: the instance, its tables, its limits, its clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from engines.keyvalue.errors import (
    access_denied,
    not_found,
    table_not_found,
    throughput_exceeded,
)
from engines.keyvalue.plan.catalogue import Table, table_of
from engines.keyvalue.sql.items import TableSql, table_sql
from engines.keyvalue.storage import names
from engines.keyvalue.values import decode
from engines.kit.errors import Reason, RequestError
from engines.kit.http.whole import HttpPorts
from engines.kit.ports import Grant, RequestClass, Statements, Store, Wait
from engines.kit.records import InstanceRecord
from engines.kit.statement import with_names

_FIND = "SELECT table_id, shape, body::text FROM {catalogue} WHERE sk = 0 AND name = $1"
ACCOUNT_DIGITS = 12
# "relation does not exist": the table has another shape now, or is gone.
NO_RELATION = "42P01"

# What operations do to tables, in the words of policies.
READ = "weftkit.keyvalue.data.read"
WRITE = "weftkit.keyvalue.data.write"
READ_CHANGES = "weftkit.keyvalue.changes.read"
READ_STRUCTURE = "weftkit.keyvalue.structure.read"
WRITE_STRUCTURE = "weftkit.keyvalue.structure.write"


@dataclass(frozen=True, slots=True)
class Known:
    """A table and its statements."""

    table: Table
    sql: TableSql


class Tables:
    """The tables of one instance as this worker knows them (see `plan/catalogue`)."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self._known: dict[str, Known] = {}
        self._find = with_names(_FIND, names(schema))

    def known(self, name: str) -> Known | None:
        """Return a table that was read before."""
        return self._known.get(name)

    def forget(self) -> None:
        """Read every table again when it is needed next."""
        self._known.clear()

    async def read(self, statements: Statements, name: str) -> Known | None:
        """Read a table from the catalogue; None if there is none."""
        rows = await statements.fetch(self._find, name)
        if not rows:
            self._known.pop(name, None)
            return None
        table_id, shape, body = rows[0]
        table = table_of(self.schema, name, table_id, shape, decode(body))
        known = Known(table, table_sql(table))
        if not table.is_creating:
            self._known[name] = known
        return known


@dataclass(slots=True)
class Context:
    """One request of one signed-in client."""

    ports: HttpPorts
    grant: Grant
    store: Store
    tables: Tables
    region: str
    operation: str
    # What is asked for at each table that is opened.
    action: str
    # What the client has called us.
    host: str = ""
    # The request has left something to be done in the background.
    has_work: bool = False
    # Tables that were known before: what is refused because of them may be refused in error.
    recalled: list[Known] = field(default_factory=list)
    # Rights that were refused, for auditors: the action, and the table's name ("": all tables).
    denied: set[tuple[str, str]] = field(default_factory=set)

    @property
    def record(self) -> InstanceRecord:
        """The instance."""
        return self.grant.record

    @property
    def account_id(self) -> str:
        """Twelve digits that stand for the instance in ARNs."""
        return account_id(self.record.instance_id)

    def table_arn(self, name: str) -> str:
        """Return the ARN of a table of the instance."""
        return f"arn:aws:dynamodb:{self.region}:{self.account_id}:table/{name}"

    def authorize(self, name: str = "") -> None:
        """Raise DynamoError unless the action is allowed on a table ("": on all of them)."""
        if not self.grant.allows(self.action, name):
            self.denied.add((self.action, name))
            raise access_denied(
                f"User: {self.grant.credential.username} is not authorized to perform: "
                f"dynamodb:{self.operation} on resource: {self.table_arn(name or '*')}"
            )

    def check_accounts(self, arns: Iterable[str]) -> None:
        """Raise DynamoError if the ARN of a table names another account; its region may be any."""
        for arn in arns:
            if arn.split(":", 5)[4] != self.account_id:
                self.denied.add((self.action, ""))
                raise access_denied(
                    f"User: {self.grant.credential.username} is not authorized to perform: "
                    f"dynamodb:{self.operation} on resource: {arn}"
                )

    async def table(self, name: str) -> Known:
        """Return a table for reading or writing items.

        Raises DynamoError: it is not allowed, or there is none.
        """
        self.authorize(name)
        known = self.tables.known(name)
        if known is not None:
            self.recalled.append(known)
            return known
        known = await self.tables.read(self.store, name)
        if known is None or known.table.is_creating:
            raise not_found()
        return known

    async def is_outdated(self) -> bool:
        """Say whether a table that was known before has changed; reads those tables again."""
        recalled, self.recalled = self.recalled, []
        changed = False
        for known in recalled:
            now = await self.tables.read(self.store, known.table.name)
            changed |= now is None or now.table.sql_name != known.table.sql_name
        return changed

    async def described(self, name: str) -> Known:
        """Return a table as the catalogue has it now, in the words of control operations."""
        self.authorize(name)
        known = await self.tables.read(self.store, name)
        if known is None:
            raise table_not_found(name)
        return known

    async def admit(
        self,
        request_class: RequestClass,
        units: float,
        table: Table | None = None,
        *,
        grows: bool = False,
    ) -> None:
        """Take capacity units of the instance's plan before the work is done.

        Raises RequestError: RATE (as the table's billing mode words it), QUOTA, SUSPENDED.
        """
        wanted = whole_units(units)
        answer = self.grant.gate.admit(request_class, wanted, grows)
        while isinstance(answer, Wait):
            await self.grant.gate.wait(request_class, wanted)
            answer = self.grant.gate.admit(request_class, wanted, grows)
        if answer is not None:
            raise _refusal(answer, table)

    def settle(self, request_class: RequestClass, units: float, admitted: float) -> None:
        """Count what was used beyond, or give back what was admitted in vain."""
        difference = whole_units(units) - whole_units(admitted)
        if difference > 0:
            self.grant.gate.charge(request_class, difference)
        elif difference < 0:
            self.grant.gate.refund(request_class, -difference)


def whole_units(units: float) -> int:
    """Return how many whole units are metered: half a read unit counts as one."""
    return int(-(-units // 1))


def account_id(instance_id: str) -> str:
    """Return the twelve digits of an instance: always the same, and nothing else is in them."""
    number = int(instance_id.replace("-", ""), 16)
    return str(number % 10**ACCOUNT_DIGITS).zfill(ACCOUNT_DIGITS)


def _refusal(error: RequestError, table: Table | None) -> RequestError:
    is_provisioned = table is not None and not table.is_on_demand
    if error.reason is Reason.RATE and is_provisioned:
        return throughput_exceeded(error.retry_after_s)
    return error
