"""The key browser: pages of keys, a key's value and life, and changes for who may write.

Keys are bytes: hexadecimal in forms, in pages text with `\\xNN` for what is not
UTF-8. A new value is text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import redis
from django.http import HttpRequest, HttpResponse

from tenants.console.explorer import keys
from tenants.console.explorer.view import Explorer
from tenants.core.errors import InvalidError

VALUE_CHARACTERS_MAX = 1_000_000
TTL_SECONDS_MAX = 10 * 365 * 24 * 3600


class KeyExplorer(Explorer):
    template = "console/data_keys.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.answer({})

    def post(self, request: HttpRequest) -> HttpResponse:
        deed = self.deeds.get(request.POST.get("do", ""), KeyExplorer._page)
        try:
            with keys.connected(self.access(writes=deed in CHANGES)) as client:
                return deed(self, request, client)
        except keys.KeyGoneError:
            return self._failed("This key is not there any more.")
        except redis.RedisError as error:
            return self._failed(str(error)[:1000] or type(error).__name__)

    def _page(self, request: HttpRequest, client: redis.Redis) -> HttpResponse:
        pattern = request.POST.get("pattern", "").strip()[: keys.KEY_BYTES_MAX] or "*"
        cursor = request.POST.get("cursor") or "0"
        found = keys.key_page(client, pattern=pattern, cursor=cursor)
        context = {
            "rows": [_row(row) for row in found.rows],
            "cursor": found.cursor,
            "pattern": pattern,
            "is_first": cursor == "0",
        }
        return self.answer(context, template="console/data_keys_part.html")

    def _show(self, request: HttpRequest, client: redis.Redis) -> HttpResponse:
        value = keys.key_value(client, _key(request))
        context = {
            **_row(value.row),
            "value": value,
            "text": _shown(value.text),
            "is_text": _is_text(value.text),
            "parts": [(_shown(name), _shown(part)) for name, part in value.items],
        }
        return self.answer(context, template="console/data_key_part.html")

    def _set(self, request: HttpRequest, client: redis.Redis) -> HttpResponse:
        """Put a string there; what lives under the key of another type is not replaced."""
        text = request.POST.get("value", "").replace("\r\n", "\n")
        if len(text) > VALUE_CHARACTERS_MAX:
            raise InvalidError(f"at most {VALUE_CHARACTERS_MAX} characters")
        key = _key(request)
        kind = client.type(key)
        if kind not in (b"none", b"string"):
            raise InvalidError("only strings are changed here; this key holds something else")
        is_new = kind == b"none"
        client.set(key, text.encode(), keepttl=not is_new)
        return self.view.toast(self._show(request, client), "Saved")

    def _expire(self, request: HttpRequest, client: redis.Redis) -> HttpResponse:
        given = request.POST.get("ttl", "").strip()
        if not given:
            client.persist(_key(request))
        elif given.isdecimal() and 0 < int(given) <= TTL_SECONDS_MAX:
            client.expire(_key(request), int(given))
        else:
            raise InvalidError(f"seconds from 1 to {TTL_SECONDS_MAX}, or nothing for never")
        return self.view.toast(self._show(request, client), "Saved")

    def _delete(self, request: HttpRequest, client: redis.Redis) -> HttpResponse:
        client.unlink(_key(request))
        answer = self.answer({"is_deleted": True}, template="console/data_key_part.html")
        return self.view.toast(answer, "Deleted")

    def _failed(self, message: str) -> HttpResponse:
        return self.answer({"failure": message}, template="console/data_key_part.html", status=422)

    deeds: Mapping[str, Callable[[KeyExplorer, HttpRequest, redis.Redis], HttpResponse]] = {
        "delete": _delete,
        "expire": _expire,
        "page": _page,
        "set": _set,
        "show": _show,
    }


CHANGES = frozenset({KeyExplorer._delete, KeyExplorer._expire, KeyExplorer._set})


def _key(request: HttpRequest) -> bytes:
    """Read the key: `key` is hexadecimal, `name` text (of a new one)."""
    given, name = request.POST.get("key", ""), request.POST.get("name", "")
    try:
        key = bytes.fromhex(given) if given else name.encode()
    except ValueError as error:
        raise InvalidError("this is no key of ours") from error
    if not key or len(key) > keys.KEY_BYTES_MAX:
        raise InvalidError(f"a key has 1 to {keys.KEY_BYTES_MAX} bytes here")
    return key


def _row(row: keys.KeyRow) -> dict[str, object]:
    seconds = None if row.ttl_ms < 0 else max(1, row.ttl_ms // 1000)
    return {"key": row.key.hex(), "name": _shown(row.key), "kind": row.kind, "ttl": seconds}


def _shown(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _is_text(value: bytes) -> bool:
    """Say whether a value comes back unchanged from a form."""
    try:
        return "\r" not in (text := value.decode()) and "\0" not in text
    except UnicodeDecodeError:
        return False
