"""Live pages: a websocket `/t/<tenant>/live` that says which topics have changed, never what.

A page asks with {"watch": {"operations": "<version it has>" | null, ...}} and hears
{"changed": {"operations": "<version>"}}; then it fetches its part again, through its own view with
its own rights. So nothing is lost between two connections: the versions that a page brings along
say what it has missed. One task in each web process looks once a second at what is watched; with
nobody watching it ends. Topics: `operations`, `instances`, `metrics:<handle>`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.sessions.backends.db import SessionStore
from django.db import DatabaseError, connection

from engines import registry
from tenants.accounts.actors import Actor
from tenants.accounts.models import User
from tenants.core.errors import NotFoundError
from tenants.iam.actors import actor_of_user

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
# Who was signed out or removed hears nothing more after so long.
RIGHTS_SECONDS = 5.0
TOPICS_MAX = 8
TOPIC_CHARACTERS_MAX = 64
MESSAGE_CHARACTERS_MAX = 2000
SOCKETS_PER_USER_MAX = 20
# Our close codes; browsers hand them to the page.
GONE, NOT_FOUND, TOO_MANY, MALFORMED = 4401, 4404, 4429, 4400

# Topic, or what stands before its colon -> the right that it takes.
RIGHTS: Mapping[str, str] = {
    "instances": "instances.read",
    "metrics": "usage.read",
    "operations": "operations.read",
}

VERSIONS: Mapping[str, str] = {
    "instances": """
SELECT md5(string_agg(concat_ws('|', i.handle, i.status, i.status_detail, i.plan_id, i.blocks,
                                o.state), ';' ORDER BY i.id))
FROM instances_instance i LEFT JOIN publish.observed o ON o.instance_id = i.id
WHERE i.tenant_id = %(tenant)s""",
    "metrics": """
SELECT md5(concat_ws('|', o.state, o.storage_bytes, o.memory_bytes, (
    SELECT sum(u.read_units + u.write_units + u.query_units + u.refused_units + u.bytes_out)
    FROM usage_usageminute u
    WHERE u.instance_id = i.id AND u.minute > now() - interval '3 minutes')))
FROM instances_instance i LEFT JOIN publish.observed o ON o.instance_id = i.id
WHERE i.tenant_id = %(tenant)s AND i.handle = %(handle)s AND i.status <> 'purged'""",
    "operations": """
SELECT md5(string_agg(concat_ws('|', p.id, p.state, p.progress_done, p.attempt, p.error_message,
    t.done_bytes, (SELECT string_agg(s.state, ',' ORDER BY s.index)
                   FROM operations_operationstep s WHERE s.operation_id = p.id)),
    ';' ORDER BY p.id))
FROM (SELECT * FROM operations_operation WHERE tenant_id = %(tenant)s ORDER BY id DESC LIMIT 50) p
LEFT JOIN publish.task t ON t.task_id = p.id""",
}


class LiveConsumer(AsyncWebsocketConsumer):
    """One page's socket. `known` is what the page has of each topic that it watches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known: dict[str, str] = {}
        self.tenant_id: UUID | None = None
        self.actor: Actor | None = None
        self.checked_at = 0.0

    @property
    def user_id(self) -> Any:
        return self.scope["user"].pk

    async def connect(self) -> None:
        await self.accept()  # a code of ours reaches the page only after this
        if WATCHER.count_of(self.user_id) >= SOCKETS_PER_USER_MAX:
            await self.close(TOO_MANY)
        elif (code := await self.check()) is not None:
            await self.close(code)
        else:
            WATCHER.join(self)

    async def disconnect(self, code: int) -> None:
        WATCHER.leave(self)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        watched = _watched(text_data)
        if watched is None:
            await self.close(MALFORMED)
            return
        assert self.actor is not None or not watched
        self.known = {topic: version for topic, version in watched.items() if self.may(topic)}

    def may(self, topic: str) -> bool:
        """Say whether the person may watch `topic`; each part that is fetched is checked anew."""
        head, _, handle = topic.partition(":")
        if self.actor is None or head not in RIGHTS:
            return False
        action = RIGHTS[head]
        if self.actor.may(action):
            return True
        return any(
            self.actor.may(action, self.actor.target(engine=engine, instance=handle))
            for engine in registry.names()
        )

    async def check(self) -> int | None:
        """Look at session and membership again; return the code to close with, None if it holds."""
        user = self.scope["user"]
        if not user.is_authenticated:
            return GONE
        self.checked_at = time.monotonic()
        tenant = self.scope["url_route"]["kwargs"]["tenant"]
        session_key = str(self.scope["session"].session_key or "")
        self.actor = await database_sync_to_async(_actor)(user.pk, session_key, tenant)
        if self.actor is None:
            return NOT_FOUND
        self.tenant_id = self.actor.tenant.pk
        return None

    async def tell(self, versions: Mapping[str, str]) -> None:
        """Say which of the watched topics are not what the page has."""
        changed = {
            topic: versions[topic]
            for topic, known in self.known.items()
            if topic in versions and versions[topic] != known
        }
        if changed:
            self.known.update(changed)
            await self.send(json.dumps({"changed": changed}))


class Watcher:
    """The one task of a process that looks for all sockets, tenant by tenant."""

    def __init__(self) -> None:
        self._sockets: set[LiveConsumer] = set()
        self._task: asyncio.Task[None] | None = None

    def count_of(self, user_id: Any) -> int:
        return sum(socket.user_id == user_id for socket in self._sockets)

    def join(self, socket: LiveConsumer) -> None:
        self._sockets.add(socket)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def leave(self, socket: LiveConsumer) -> None:
        self._sockets.discard(socket)

    async def _run(self) -> None:
        while self._sockets:
            started = time.monotonic()
            try:
                await self._look()
            except DatabaseError as error:
                log.warning("live pages wait for the database", error=str(error))
            await asyncio.sleep(max(0.1, LOOK_SECONDS - (time.monotonic() - started)))

    async def _look(self) -> None:
        by_tenant: dict[UUID, set[str]] = {}
        for socket in list(self._sockets):
            if time.monotonic() - socket.checked_at > RIGHTS_SECONDS:
                if (code := await socket.check()) is not None:
                    self.leave(socket)
                    await socket.close(code)
                    continue
                socket.known = {t: known for t, known in socket.known.items() if socket.may(t)}
            if socket.tenant_id is not None and socket.known:
                by_tenant.setdefault(socket.tenant_id, set()).update(socket.known)
        for tenant_id, topics in by_tenant.items():
            versions = await database_sync_to_async(versions_of)(tenant_id, frozenset(topics))
            for socket in list(self._sockets):
                if socket.tenant_id == tenant_id:
                    await socket.tell(versions)


WATCHER = Watcher()


def versions_of(tenant_id: UUID, topics: frozenset[str]) -> dict[str, str]:
    """Return what stands for the state of each topic of a tenant; unknown instances have none."""
    found = {}
    with connection.cursor() as cursor:
        for topic in sorted(topics):
            head, _, handle = topic.partition(":")
            cursor.execute(VERSIONS[head], {"tenant": tenant_id, "handle": handle})
            row = cursor.fetchone()
            if row is not None:
                found[topic] = str(row[0] or "")
    return found


def _watched(text: str | None) -> dict[str, str] | None:
    """Read {"watch": {topic: version | null}}; None if it is not that."""
    if text is None or len(text) > MESSAGE_CHARACTERS_MAX:
        return None
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    topics = message.get("watch") if isinstance(message, dict) else None
    if not isinstance(topics, dict) or len(topics) > TOPICS_MAX:
        return None
    if any(len(topic) > TOPIC_CHARACTERS_MAX or "\0" in topic for topic in topics):
        return None
    return {topic: version if isinstance(version, str) else "" for topic, version in topics.items()}


def _actor(user_id: UUID, session_key: str, tenant: str) -> Actor | None:
    """Return whom a session stands for in a tenant; None once it ended or the person left."""
    user = User.objects.filter(pk=user_id, is_active=True).first()
    if user is None or not SessionStore().exists(session_key):
        return None
    try:
        return actor_of_user(user=user, tenant=tenant)
    except NotFoundError:
        return None
