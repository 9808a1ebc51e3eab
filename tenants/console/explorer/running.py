"""Which texts of the SQL console run, in all web processes: how many of a person, which to cancel.

What holds everywhere is in Redis: a sorted set of a person's runs by when they end at the latest,
so that those of a process that died count no longer than they could have run; and a mark for each
run that shall be cancelled. While Redis is away each process counts and cancels for itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cache

import redis
import structlog
from django.conf import settings

from tenants.core.errors import ConflictError, TooManyError

log = structlog.get_logger(__name__)

RUNNING_PER_PERSON_MAX = 3
RUNNING_MAX = 24  # in one process, which has a thread for each
CANCELLED_MAX = 100
PREFIX = "weftkit:sql:"
REDIS_SECONDS_MAX = 0.5
AWAY_SECONDS = 5.0
# A cancel that came before its text waits for so long.
CANCEL_SECONDS = 120

Key = tuple[str, str]  # a person, and the id that their page gave the run

# KEYS: a person's runs. ARGV: the run, for how many seconds at most, how many there may be.
# Answers 1: entered, 0: too many, -1: it runs already.
ENTER = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return -1 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[2]) + 1)
return 1
"""


class Running:
    """The texts that run in this process, and what all processes know of them.

    A cancel may overtake the text that it is meant for, on the way here or to the server: its mark
    stays, and who runs the text looks at it again and again.
    """

    def __init__(self, url: str) -> None:
        self._lock = threading.Lock()
        self._runs: dict[Key, Callable[[], None] | None] = {}
        self._cancelled: OrderedDict[Key, None] = OrderedDict()
        self._redis = redis.Redis.from_url(
            url, socket_timeout=REDIS_SECONDS_MAX, socket_connect_timeout=REDIS_SECONDS_MAX
        )
        self._enter = self._redis.register_script(ENTER)
        self._away_until = 0.0

    @contextlib.contextmanager
    def entered(self, who: str, run_id: str, seconds: int) -> Iterator[None]:
        """Count one text of a person for the length of the block, `seconds` at most.

        Raises ConflictError if it runs already, TooManyError if too many do.
        """
        key = (who, run_id)
        with self._lock:
            mine = sum(name == who for name, _ in self._runs)
            _refuse(key in self._runs, mine >= RUNNING_PER_PERSON_MAX)
            _refuse(False, len(self._runs) >= RUNNING_MAX)
            self._runs[key] = None
        try:
            answer = self._asked(
                lambda: self._enter(
                    keys=[_runs(who)], args=[run_id, seconds, RUNNING_PER_PERSON_MAX]
                )
            )
            _refuse(answer == -1, answer == 0)
            try:
                yield
            finally:
                self._asked(lambda: self._redis.zrem(_runs(who), run_id))
                self._asked(lambda: self._redis.delete(_mark(key)))
        finally:
            with self._lock:
                del self._runs[key]
                self._cancelled.pop(key, None)

    def connected(self, who: str, run_id: str, cancel: Callable[[], None]) -> None:
        """Say how a text is cancelled whose connection is open."""
        with self._lock:
            self._runs[who, run_id] = cancel

    def is_cancelled(self, who: str, run_id: str) -> bool:
        """Say whether a text shall end, whichever process was told so."""
        key = (who, run_id)
        with self._lock:
            if key in self._cancelled:
                return True
        return bool(self._asked(lambda: self._redis.exists(_mark(key))))

    def cancel(self, who: str, run_id: str) -> None:
        """Have a text end as cancelled, now or as soon as it comes, wherever it runs."""
        key = (who, run_id)
        with self._lock:
            cancel = self._runs.get(key)
            self._cancelled[key] = None
            while len(self._cancelled) > CANCELLED_MAX:
                self._cancelled.popitem(last=False)
        self._asked(lambda: self._redis.set(_mark(key), 1, ex=CANCEL_SECONDS))
        if cancel is not None:
            cancel()

    def _asked(self, ask: Callable[[], object]) -> object:
        """Return Redis' answer; None while it is away."""
        if time.monotonic() < self._away_until:
            return None
        try:
            return ask()
        except redis.RedisError as error:
            log.warning("the SQL console counts in this process alone", error=str(error))
            self._away_until = time.monotonic() + AWAY_SECONDS
            return None


@cache
def _shared(url: str) -> Running:
    return Running(url)


def running() -> Running:
    """Return this process' texts."""
    return _shared(settings.REDIS_URL)


def _refuse(is_running: bool, is_full: bool) -> None:
    if is_running:
        raise ConflictError("this text runs already")
    if is_full:
        raise TooManyError("too many statements run at once", retry_after_s=1)


def _runs(who: str) -> str:
    return f"{PREFIX}runs:{who}"


def _mark(key: Key) -> str:
    return f"{PREFIX}cancel:{key[0]}:{key[1]}"
