"""The item explorer: tables, a query builder, items as JSON, and changes for who may write."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from django.http import HttpRequest, HttpResponse

from tenants.console.explorer import items
from tenants.console.explorer.items import Items, Search
from tenants.console.explorer.view import Explorer
from tenants.core.errors import InvalidError

# An item has at most 400 KB; as indented JSON it is longer.
JSON_CHARACTERS_MAX = 2_000_000
PREVIEW_CHARACTERS = 160
FIELD_CHARACTERS_MAX = 4096
# The fields of the query builder, which the buttons below its answer send again.
SEARCH = (
    "table", "index", "partition", "sort_test", "sort", "sort_end",
    "filter_name", "filter_test", "filter_type", "filter_value", "order",
)  # fmt: skip
# What DynamoDB does not say: which condition the console has set.
MEANT = {
    "ConditionalCheckFailedException": "A new item needs a key that no item has, and a changed"
    " one the key that it had.",
}


class ItemExplorer(Explorer):
    template = "console/data_items.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.answer({})

    def post(self, request: HttpRequest) -> HttpResponse:
        deed = self.deeds.get(request.POST.get("do", ""), ItemExplorer._tables)
        try:
            with items.connected(self.access(writes=deed in CHANGES)) as client:
                return deed(self, request, client)
        except ClientError as error:
            detail = error.response["Error"]
            code = detail["Code"]
            said = f"{code}: {detail.get('Message', '')}"
            return self._failed(request, f"{said}. {MEANT[code]}" if code in MEANT else said)
        except BotoCoreError as error:
            return self._failed(request, str(error))
        except InvalidError as error:
            return self._failed(request, error.message)

    def _tables(self, request: HttpRequest, client: Items) -> HttpResponse:
        start = _field(request, "start")
        context = {"tables": client.tables(start), "is_first": not start}
        return self.answer(context, template="console/data_tables_part.html")

    def _table(self, request: HttpRequest, client: Items) -> HttpResponse:
        context = {
            "table": client.table(_field(request, "table")),
            "sort_tests": items.SORT_TESTS,
            "filter_tests": items.FILTER_TESTS,
        }
        return self.answer(context, template="console/data_table_part.html")

    def _search(self, request: HttpRequest, client: Items) -> HttpResponse:
        wanted = _search_of(request)
        page = client.search(client.table(wanted.table), wanted)
        names = [name for name, _ in page.key.attributes]
        rows = [
            {
                "key": _packed({name: item[name] for name in names}),
                "shown": [_short(item[name]) for name in names],
                "preview": _preview(item, names),
            }
            for item in page.items
        ]
        context = {
            "table_name": wanted.table,
            "names": names,
            "rows": rows,
            "scanned": page.scanned,
            "units": page.units,
            "search": [(name, _field(request, name)) for name in SEARCH if name in request.POST],
            "here": request.POST.get("start", ""),
            "start": _packed(page.last) if page.last else "",
        }
        return self.answer(context, template="console/data_items_part.html")

    def _show(self, request: HttpRequest, client: Items) -> HttpResponse:
        table, key = _field(request, "table"), _unpacked(request.POST.get("key", ""))
        return self._item(table, key, client.item(table, key))

    def _new(self, request: HttpRequest, client: Items) -> HttpResponse:
        table = client.table(_field(request, "table"))
        pattern = {name: {kind: ""} for name, kind in table.keys[0].attributes}
        return self._item(table.name, {}, pattern)

    def _put(self, request: HttpRequest, client: Items) -> HttpResponse:
        table = client.table(_field(request, "table"))
        item = _item_of(request.POST.get("item", ""))
        client.put(table, item, is_new=request.POST.get("is_new") == "1")
        key = {name: _with_bytes(item[name]) for name, _ in table.keys[0].attributes}
        return self._changed(self._item(table.name, key, client.item(table.name, key)), "Saved")

    def _delete(self, request: HttpRequest, client: Items) -> HttpResponse:
        client.delete(_field(request, "table"), _unpacked(request.POST.get("key", "")))
        answer = self.answer({"is_deleted": True}, template="console/data_item_part.html")
        return self._changed(answer, "Deleted")

    def _item(
        self, table: str, key: Mapping[str, Any], item: Mapping[str, Any] | None
    ) -> HttpResponse:
        """Answer an item to look at or change; without a key it is the beginning of a new one."""
        context = {
            "table_name": table,
            "key": _packed(key) if key else "",
            "text": None if item is None else _json(item, indent=2),
        }
        return self.answer(context, template="console/data_item_part.html")

    def _changed(self, answer: HttpResponse, text: str) -> HttpResponse:
        """Say what was done, and have the list read again."""
        self.view.toast(answer, text)
        said = json.loads(answer.headers["HX-Trigger"])
        answer.headers["HX-Trigger"] = json.dumps({**said, "items-changed": True})
        return answer

    def _failed(self, request: HttpRequest, message: str) -> HttpResponse:
        """Say what was refused; what was written to be saved stays as it is."""
        context = {"failure": message[:1000]}
        answer = self.answer(context, template="console/data_item_part.html", status=422)
        if request.POST.get("do") == "put":
            answer.headers["HX-Retarget"] = "#item-failure"
        return answer

    deeds: Mapping[str, Callable[[ItemExplorer, HttpRequest, Items], HttpResponse]] = {
        "delete": _delete,
        "new": _new,
        "put": _put,
        "search": _search,
        "show": _show,
        "table": _table,
        "tables": _tables,
    }


CHANGES = frozenset({ItemExplorer._delete, ItemExplorer._new, ItemExplorer._put})


def _search_of(request: HttpRequest) -> Search:
    start = request.POST.get("start", "")
    return Search(
        table=_field(request, "table"),
        index=_field(request, "index"),
        partition=_field(request, "partition"),
        sort_test=_field(request, "sort_test") or "=",
        sort=_field(request, "sort"),
        sort_end=_field(request, "sort_end"),
        filter_name=_field(request, "filter_name"),
        filter_test=_field(request, "filter_test") or "=",
        filter_type=_field(request, "filter_type") or "S",
        filter_value=_field(request, "filter_value"),
        is_descending=request.POST.get("order") == "descending",
        start=_unpacked(start) if start else None,
    )


def _field(request: HttpRequest, name: str) -> str:
    value = request.POST.get(name, "")
    if len(value) > FIELD_CHARACTERS_MAX:
        raise InvalidError(f"{name}: at most {FIELD_CHARACTERS_MAX} characters")
    return value


def _item_of(text: str) -> dict[str, Any]:
    """Read an item out of a form; what an attribute value may be, the engine says itself."""
    if len(text) > JSON_CHARACTERS_MAX:
        raise InvalidError(f"at most {JSON_CHARACTERS_MAX} characters")
    try:
        item = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidError(f"this is no JSON: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidError("this is no JSON that an item can be") from error
    if not isinstance(item, dict):
        raise InvalidError('an item is an object: {"id": {"S": "x"}}')
    return item


def _with_bytes(value: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a key's base64 into bytes, as the client wants binary."""
    ((kind, content),) = value.items()
    return {kind: base64.b64decode(content, validate=True) if kind == "B" else content}


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, default=_base64)


def _base64(value: Any) -> str:
    return base64.b64encode(bytes(value)).decode()


def _no_constant(text: str) -> None:
    raise ValueError(text)


def _packed(key: Mapping[str, Any]) -> str:
    """Return a key as one word that a form can hold."""
    return base64.urlsafe_b64encode(_json(key).encode()).decode()


def _unpacked(word: str) -> dict[str, Any]:
    try:
        key = _item_of(base64.urlsafe_b64decode(word.encode()).decode())
        return {name: _with_bytes(value) for name, value in key.items()}
    except (AttributeError, TypeError, ValueError) as error:  # binascii's and Unicode's are such
        raise InvalidError("this is no key of ours") from error


def _short(value: Mapping[str, Any]) -> str:
    ((_, content),) = value.items()
    text = _base64(content) if isinstance(content, bytes) else str(content)
    return text[:PREVIEW_CHARACTERS]


def _preview(item: Mapping[str, Any], names: list[str]) -> str:
    rest = {name: value for name, value in item.items() if name not in names}
    text = _json(rest)
    return text if len(text) <= PREVIEW_CHARACTERS else text[:PREVIEW_CHARACTERS] + "..."
