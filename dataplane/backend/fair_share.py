"""Who gets the next session of a server: a bound shared by several pools, and by what rule.

Each pool (an instance, and what its clients asked for at the start) has a bound of its own;
together they have one more. While there is room everybody opens what it needs. When there is none,
an idle session of another pool is closed for one that waits; and when nothing is idle, a pool that
holds more than its share passes sessions on as they become free. With more pools than sessions they
take turns, each long enough to be worth the opening.

Pure: numbers only. The pools do what the advice says and report what they did.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum

# So many uses in a row before a pool's only session goes to one that has none.
TURN_USES = 16


class Advice(Enum):
    """What a pool that needs a session should do."""

    OPEN = "open"
    STEAL = "steal"  # close an idle session of another pool first
    WAIT = "wait"


@dataclass(slots=True)
class Share:
    """One pool's numbers. `held` counts sessions open or being opened, `idle` is part of it."""

    size_max: int
    held: int = 0
    idle: int = 0
    waiting: int = 0
    uses: int = 0  # since a session was last taken over from another pool
    turn: int = 0  # when it last got a session; the smallest has waited longest


class FairShare:
    """The bound over all pools of one worker."""

    def __init__(self, total_max: int) -> None:
        assert total_max > 0
        self._total_max = total_max
        self._total = 0
        self._turns = 0
        self._shares: dict[Hashable, Share] = {}

    @property
    def total(self) -> int:
        """Sessions open or being opened, of all pools."""
        return self._total

    @property
    def is_full(self) -> bool:
        """True while nobody can open a session unless another is closed."""
        return self._total >= self._total_max

    def share(self, key: Hashable, size_max: int) -> Share:
        """Return the pool's numbers; a pool that is new starts with none."""
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(size_max)
        share.size_max = size_max
        return share

    def leave(self, key: Hashable) -> None:
        """Forget a pool that holds nothing and wants nothing."""
        share = self._shares.get(key)
        if share is not None and not share.held and not share.waiting:
            del self._shares[key]

    def advice(self, key: Hashable) -> tuple[Advice, Hashable]:
        """Say what a pool with a waiting client may do; with STEAL, from whom."""
        share = self._shares[key]
        if share.held >= share.size_max:
            return Advice.WAIT, key
        if self._total < self._total_max:
            return Advice.OPEN, key
        # Who has most to spare.
        victim = max(
            (other for other in self._shares if other != key and self._shares[other].idle),
            key=lambda other: (self._shares[other].idle, self._shares[other].held),
            default=None,
        )
        return (Advice.WAIT, key) if victim is None else (Advice.STEAL, victim)

    def opened(self, key: Hashable) -> None:
        """Count a session that is being opened."""
        self._total += 1
        self._turns += 1
        share = self._shares[key]
        share.held += 1
        share.uses = 0
        share.turn = self._turns

    def closed(self, key: Hashable) -> None:
        """Count a session less."""
        self._total -= 1
        self._shares[key].held -= 1
        assert self._total >= 0
        assert self._shares[key].held >= 0

    def next_for(self, key: Hashable) -> Hashable:
        """Say which pool should have a session of `key` that has become free."""
        own = self._shares[key]
        own.uses += 1
        if not self.is_full:
            return key  # the others open their own
        needy = [
            (share.held, share.turn, other)
            for other, share in self._shares.items()
            if other != key and share.waiting and share.held < share.size_max
        ]
        if not needy:
            return key
        held, _, neediest = min(needy, key=lambda each: each[:2])
        if not own.waiting:
            return neediest
        quota = max(1, self._total_max // (len(needy) + 1))
        if own.held > quota and held < quota:
            return neediest
        is_over_turn = own.uses >= TURN_USES and own.held >= quota
        return neediest if held == 0 and is_over_turn else key
