"""BatchExecuteStatement and ExecuteTransaction: many statements, all of which read or all write.

In a batch each statement is for itself, and its refusal stands in its place. A transaction is one
of `committing`, or one moment's read. Both name whole primary keys; nothing is searched for.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from engines.keyvalue.capacity import read_units
from engines.keyvalue.errors import DynamoError, translated, validation
from engines.keyvalue.evaluate import conditions
from engines.keyvalue.parse import partiql
from engines.keyvalue.parse.expressions.trees import Condition
from engines.keyvalue.parse.partiql import Select, Statement
from engines.keyvalue.parse.requests import Parsed
from engines.keyvalue.plan import checks
from engines.keyvalue.plan.statements import flattened, primary_key
from engines.keyvalue.reply import consumed_by_read
from engines.keyvalue.session.committing import Action
from engines.keyvalue.session.context import NO_RELATION, Context, Known
from engines.keyvalue.session.statements import action_of, opened, shows_item, write
from engines.keyvalue.session.transactions import Get, consumed, perform, read, together
from engines.keyvalue.values import Item, decode
from engines.kit.errors import Reason, RequestError
from engines.kit.ports import RequestClass

# BatchStatementErrorCodeEnum of the service model.
_CODES: Mapping[str, str] = {
    "AccessDeniedException": "AccessDenied",
    "ConditionalCheckFailedException": "ConditionalCheckFailed",
    "DuplicateItemException": "DuplicateItem",
    "ItemCollectionSizeLimitExceededException": "ItemCollectionSizeLimitExceeded",
    "LimitExceededException": "RequestLimitExceeded",
    "ProvisionedThroughputExceededException": "ProvisionedThroughputExceeded",
    "ResourceNotFoundException": "ResourceNotFound",
    "ThrottlingException": "ThrottlingError",
    "TransactionConflictException": "TransactionConflict",
    "ValidationException": "ValidationError",
}
_OTHER_CODE = "InternalServerError"
_MIXED = "Statements that read and statements that write cannot be mixed in one request"


async def batch_execute_statement(context: Context, parsed: Parsed) -> dict[str, Any]:
    """BatchExecuteStatement."""
    fields = parsed.fields
    requests = fields["Statements"]
    read_ones: list[Statement | DynamoError] = []
    for request in requests:
        try:
            read_ones.append(_statement_of(request))
        except DynamoError as error:
            read_ones.append(error)
    _check_alike([each for each in read_ones if not isinstance(each, DynamoError)])
    responses, capacities = [], []
    for request, statement in zip(requests, read_ones, strict=True):
        wanted = request | {"ReturnConsumedCapacity": fields.get("ReturnConsumedCapacity")}
        if isinstance(statement, DynamoError):
            responses.append(_refusal(statement))
            continue
        response, capacity = await _answered(context, parsed, statement, wanted)
        responses.append(response)
        capacities += capacity
    answer: dict[str, Any] = {"Responses": responses}
    if capacities:
        answer["ConsumedCapacity"] = capacities
    return answer


async def _answered(
    context: Context, parsed: Parsed, statement: Statement, fields: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Any]]:
    """Perform one statement of a batch; a second time if its table has changed its form."""
    for is_last in (False, True):
        try:
            known = await opened(context, parsed, statement)
            if isinstance(statement, Select):
                item, capacity = await _get(context, known, statement, fields)
            else:
                item, capacity = await write(context, known, statement, fields)
        except RequestError as error:
            # The whole request must not be tried again: what came before has been written.
            if not is_last and await _is_reshaped(context, error):
                context.tables.forget()
                continue
            return _refusal(error) | {"TableName": statement.table}, []
        response: dict[str, Any] = {"TableName": known.table.name}
        if item is not None:
            response["Item"] = item
        return response, list(capacity.values())
    raise AssertionError("the second attempt returns")


async def _is_reshaped(context: Context, error: RequestError) -> bool:
    """Say whether a refusal rests on a form that the table no longer has."""
    if error.sqlstate == NO_RELATION:
        return True
    return error.reason is Reason.MALFORMED and await context.is_outdated()


async def _get(
    context: Context, known: Known, select: Select, fields: Mapping[str, Any]
) -> tuple[Item | None, dict[str, Any]]:
    key, rest = _key_of(known, select, "BatchExecuteStatement")
    is_consistent = bool(fields.get("ConsistentRead"))
    least = read_units(0, consistent=is_consistent)
    await context.admit(RequestClass.READ, least, known.table)
    rows = await context.store.fetch(known.sql.get, key.sk, key.pk, key.rk)
    stored, size_bytes = rows[0] if rows else (b"", 0)
    units = read_units(size_bytes, consistent=is_consistent)
    context.settle(RequestClass.READ, units, least)
    return _selected(select, rest, stored), consumed_by_read(fields, known.table, units)


def _selected(select: Select, rest: Condition | None, stored: bytes) -> Item | None:
    """Return what is asked for of an item, if it is there and what else was said of it holds."""
    if not stored:
        return None
    item = decode(stored)
    if rest is not None and not conditions.matches(rest, item):
        return None
    return item if select.paths is None else flattened(select.paths, item)


def _key_of(known: Known, select: Select, operation: str) -> tuple[Any, Condition | None]:
    found = primary_key(known.table, select.where)
    if found is None or select.index is not None:
        raise validation(
            f"Select statements within {operation} must specify the primary key in the where "
            "clause."
        )
    key, rest = found
    if rest is not None:
        checks.check_nested_names(known.table, rest.nested)
    return checks.key_bytes(known.table, key), rest


def _refusal(error: RequestError) -> dict[str, Any]:
    refused = translated(error)
    described = {"Code": _CODES.get(refused.code, _OTHER_CODE), "Message": refused.message}
    return {"Error": described | dict(refused.extra)}


async def execute_transaction(context: Context, parsed: Parsed) -> Mapping[str, Any] | bytes:
    """ExecuteTransaction."""
    fields = parsed.fields
    requests = fields["TransactStatements"]
    statements = together(functools.partial(_statement_of, request) for request in requests)
    _check_alike(statements)
    knowns = [await opened(context, parsed, statement) for statement in statements]
    if isinstance(statements[0], Select):
        return await _read_all(context, statements, knowns, fields)
    actions: list[Action] = together(
        functools.partial(_action_of, known, statement, request)
        for known, statement, request in zip(knowns, statements, requests, strict=True)
    )
    spent = await perform(context, actions, fields, requests)
    kind = "WriteCapacityUnits" if spent.wrote else "ReadCapacityUnits"
    return {"Responses": [{} for _ in actions]} | consumed(fields, spent, kind)


async def _read_all(
    context: Context,
    statements: Sequence[Statement],
    knowns: Sequence[Known],
    fields: Mapping[str, Any],
) -> bytes:
    selects = [each for each in statements if isinstance(each, Select)]
    keys = together(
        functools.partial(_key_of, known, select, "ExecuteTransaction")
        for known, select in zip(knowns, selects, strict=True)
    )
    gets = [Get(known, key, None) for known, (key, _) in zip(knowns, keys, strict=True)]
    pieces, spent = await read(context, gets)
    responses = []
    for select, (_, rest), piece in zip(selects, keys, pieces, strict=True):
        item = _selected(select, rest, piece)
        responses.append({} if item is None else {"Item": item})
    return orjson.dumps({"Responses": responses} | consumed(fields, spent, "ReadCapacityUnits"))


def _statement_of(request: Mapping[str, Any]) -> Statement:
    return partiql.read(request["Statement"], request.get("Parameters", ()))


def _action_of(known: Known, statement: Statement, request: Mapping[str, Any]) -> Action:
    if isinstance(statement, partiql.Update | partiql.Delete) and statement.returning != "NONE":
        raise validation("RETURNING is not supported in transactions")
    return action_of(known, statement, shows_item(request))


def _check_alike(statements: Sequence[Statement]) -> None:
    """Raise DynamoError unless all of the statements read, or none does."""
    if len({isinstance(statement, Select) for statement in statements}) > 1:
        raise validation(_MIXED)
