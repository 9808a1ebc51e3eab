"""The prepared statements and portals of a session: what each name will cost when it is executed.

Names are noted before the server has answered; a name is then taken to mean the costliest of what
it may mean, and an error puts back what was.
"""

from __future__ import annotations

from typing import Final

from engines.kit.ports import RequestClass
from engines.relational import parse
from engines.relational.parse import Statement
from engines.relational.relay.segment import Segment

# A session that prepares more is charged as for unknown statements; the server holds far more.
NAMES_MAX: Final = 16_384

# An empty query; and a portal that was executed before: fetching on is the same statement.
FREE_OF_CHARGE: Final = Statement(RequestClass.UNLIMITED)


class Names:
    """One session's prepared statements and portals. SQL and the protocol share the statements."""

    __slots__ = ("_portals", "_statements", "_unnamed_portal")

    def __init__(self) -> None:
        self._statements: dict[bytes, Statement] = {}
        self._portals: dict[bytes, Statement] = {}
        # Apart, because nearly every statement goes through it.
        self._unnamed_portal = parse.UNKNOWN

    def parsed(self, segment: Segment, name: bytes, statement: Statement) -> None:
        """Note a Parse.

        A named statement that exists is refused by the server, unless the one that we know of has
        failed itself: so the costlier of both counts until an error tells.
        """
        if not name:
            self._statements[b""] = statement
            return
        name = parse.cut(name)
        _bound(self._statements)
        previous = self._statements.get(name)
        noted = _costlier(previous, statement)
        self._statements[name] = noted
        segment.names += ((len(segment.units), name, previous, noted),)

    def bound(self, portal: bytes, name: bytes) -> None:
        """Note a Bind."""
        statement = self._statements.get(parse.cut(name), parse.UNKNOWN)
        if not portal:
            self._unnamed_portal = statement
            return
        portal = parse.cut(portal)
        _bound(self._portals)
        self._portals[portal] = _costlier(self._portals.get(portal), statement)

    def portal(self, portal: bytes) -> Statement:
        """Return what an Execute of `portal` means."""
        if not portal:
            return self._unnamed_portal
        return self._portals.get(parse.cut(portal), parse.UNKNOWN)

    def executed(self, portal: bytes) -> None:
        """Note that a portal's statement was admitted."""
        if not portal:
            self._unnamed_portal = FREE_OF_CHARGE
        else:
            self._portals[parse.cut(portal)] = FREE_OF_CHARGE

    def closed(self, is_statement: bool, name: bytes) -> None:
        """Note a Close."""
        if is_statement:
            self._statements.pop(parse.cut(name), None)
        elif name:
            self._portals.pop(parse.cut(name), None)
        else:
            self._unnamed_portal = parse.UNKNOWN

    def resolve(self, statement: Statement) -> Statement:
        """Return the prepared statement that an SQL EXECUTE means; else the statement itself."""
        if statement.executes is not None:  # never together with the other two
            return self._statements.get(statement.executes, parse.UNKNOWN)
        return statement

    def apply(self, statement: Statement) -> None:
        """Follow SQL's PREPARE, DEALLOCATE and DISCARD ALL."""
        if statement.prepares is not None:
            name, prepared = statement.prepares
            _bound(self._statements)
            self._statements[name] = _costlier(self._statements.get(name), prepared)
        elif statement.deallocates:
            self._statements.pop(statement.deallocates, None)
        elif statement.deallocates is not None:
            self._statements.clear()

    def undo(self, segment: Segment, from_index: int) -> None:
        """Forget the statements that an error kept from coming into being."""
        for index, name, previous, noted in reversed(segment.names):
            if index >= from_index and self._statements.get(name) is noted:
                if previous is None:
                    del self._statements[name]
                else:
                    self._statements[name] = previous

    def forget_unnamed(self) -> None:
        """Unlearn the unnamed statement and portal: the server's may be others."""
        self._statements[b""] = self._unnamed_portal = parse.UNKNOWN

    def transaction_ended(self) -> None:
        """Portals end with their transaction."""
        self._unnamed_portal = parse.UNKNOWN
        if self._portals:
            self._portals.clear()


def _costlier(known: Statement | None, other: Statement) -> Statement:
    """Return the one of two possible meanings of a name that must be charged."""
    if known is None:
        return other
    grows = known.grows or other.grows
    return Statement(max(known.request_class, other.request_class), grows)


def _bound(names: dict[bytes, Statement]) -> None:
    """Forget the oldest of too many names."""
    if len(names) >= NAMES_MAX:
        del names[next(iter(names))]
