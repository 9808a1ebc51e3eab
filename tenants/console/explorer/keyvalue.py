"""The item explorer: tables, a query builder, items as JSON, and changes for who may write."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from django.http import HttpRequest, HttpResponse

from engines.kit.records import Role
from tenants.console.explorer import items
from tenants.console.explorer.items import Items, Search
from tenants.console.explorer.view import Explorer
from tenants.core.errors import ForbiddenError, InvalidError

# An item has at most 400 KB; as indented JSON it is longer.
JSON_CHARACTERS_MAX = 2_000_000
PREVIEW_CHARACTERS = 160
FIELD_CHARACTERS_MAX = 4096


class ItemExplorer(Explorer):
    template = "console/data_items.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.answer({"may_write": self._may_write})

    def post(self, request: HttpRequest) -> HttpResponse:
        deed = self.deeds.get(request.POST.get("do", ""), ItemExplorer._tables)
        wanted = Role.WRITE if deed in CHANGES else Role.READ
        if wanted is Role.WRITE and not self._may_write:
            raise ForbiddenError("your role may read the data of this instance, not change them")
        try:
            with items.connected(self.view.access(wanted)) as client:
                return deed(self, request, client)
        except ClientError as error:
            detail = error.response["Error"]
            return self._failed(f"{detail['Code']}: {detail.get('Message', '')}")
        except BotoCoreError as error:
            return self._failed(str(error))

    def _tables(self, request: HttpRequest, client: Items) -> HttpResponse:
        context = {"tables": client.tables(), "tables_max": items.TABLES_MAX}
        return self.answer(context, template="console/data_tables_part.html")

    def _table(self, request: HttpRequest, client: Items) -> HttpResponse:
        context = {
            "table": client.table(_field(request, "table")),
            "sort_tests": items.SORT_TESTS,
            "filter_tests": items.FILTER_TESTS,
            "may_write": self._may_write,
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
            "start": _packed(page.last) if page.last else "",
            "is_first": wanted.start is None,
        }
        return self.answer(context, template="console/data_items_part.html")

    def _show(self, request: HttpRequest, client: Items) -> HttpResponse:
        table, key = _field(request, "table"), _unpacked(request.POST.get("key", ""))
        return self._item(table, key, client.item(table, key))

    def _put(self, request: HttpRequest, client: Items) -> HttpResponse:
        table = client.table(_field(request, "table"))
        item = _item_of(request.POST.get("item", ""))
        client.put(table, item, is_new=request.POST.get("is_new") == "1")
        names = [name for name, _ in table.keys[0].attributes]
        key = {name: item[name] for name in names}
        return self.view.toast(self._item(table.name, key, client.item(table.name, key)), "Saved")

    def _delete(self, request: HttpRequest, client: Items) -> HttpResponse:
        client.delete(_field(request, "table"), _unpacked(request.POST.get("key", "")))
        answer = self.answer({"is_deleted": True}, template="console/data_item_part.html")
        return self.view.toast(answer, "Deleted")

    def _item(
        self, table: str, key: Mapping[str, Any], item: Mapping[str, Any] | None
    ) -> HttpResponse:
        context = {
            "table_name": table,
            "key": _packed(key),
            "text": None if item is None else _json(item, indent=2),
            "may_write": self._may_write,
        }
        return self.answer(context, template="console/data_item_part.html")

    def _failed(self, message: str) -> HttpResponse:
        context = {"failure": message[:1000]}
        return self.answer(context, template="console/data_item_part.html", status=422)

    @property
    def _may_write(self) -> bool:
        return self.view.role is not Role.READ

    deeds: Mapping[str, Callable[[ItemExplorer, HttpRequest, Items], HttpResponse]] = {
        "delete": _delete,
        "put": _put,
        "search": _search,
        "show": _show,
        "table": _table,
        "tables": _tables,
    }


CHANGES = frozenset({ItemExplorer._delete, ItemExplorer._put})


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
        return {name: _with_bytes(value) for name, value in item.items()}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InvalidError('this is no item in DynamoDB\'s JSON: {"id": {"S": "x"}}') from error


def _with_bytes(value: Mapping[str, Any]) -> dict[str, Any]:
    """Turn base64 into bytes, as the client wants binary."""
    ((kind, content),) = value.items()
    if kind == "B":
        return {kind: base64.b64decode(content, validate=True)}
    if kind == "BS":
        return {kind: [base64.b64decode(each, validate=True) for each in content]}
    if kind == "M":
        return {kind: {name: _with_bytes(each) for name, each in content.items()}}
    if kind == "L":
        return {kind: [_with_bytes(each) for each in content]}
    return {kind: content}


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
        return _item_of(base64.urlsafe_b64decode(word.encode()).decode())
    except (binascii.Error, UnicodeError) as error:
        raise InvalidError("this is no key of ours") from error


def _short(value: Mapping[str, Any]) -> str:
    ((_, content),) = value.items()
    text = _base64(content) if isinstance(content, bytes) else str(content)
    return text[:PREVIEW_CHARACTERS]


def _preview(item: Mapping[str, Any], names: list[str]) -> str:
    rest = {name: value for name, value in item.items() if name not in names}
    text = _json(rest)
    return text if len(text) <= PREVIEW_CHARACTERS else text[:PREVIEW_CHARACTERS] + "..."
