"""The bound over all pools: never exceeded, and nobody waits for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataplane.backend.fair_share import TURN_USES, Advice, FairShare, Share

NAMES = "abcd"


class Pools:
    """Pools that do at once what the advice says."""

    def __init__(self, total_max: int, sizes: dict[str, int]) -> None:
        self.fair = FairShare(total_max)
        self.shares: dict[str, Share] = {
            name: self.fair.share(name, size) for name, size in sizes.items()
        }
        self.busy = dict.fromkeys(sizes, 0)
        self.served = dict.fromkeys(sizes, 0)

    def want(self, name: str) -> None:
        """One more client of a pool needs a session."""
        self.shares[name].waiting += 1
        self.serve(name)

    def serve(self, name: str) -> None:
        share = self.shares[name]
        while share.waiting and share.idle:
            self.start(name)
        while share.waiting:
            advice, victim = self.fair.advice(name)
            if advice is Advice.WAIT:
                return
            if advice is Advice.STEAL:
                assert isinstance(victim, str)
                assert victim != name
                self.shares[victim].idle -= 1
                self.fair.closed(victim)
            self.fair.opened(name)
            share.idle += 1
            self.start(name)

    def start(self, name: str) -> None:
        self.shares[name].idle -= 1
        self.shares[name].waiting -= 1
        self.busy[name] += 1
        self.served[name] += 1

    def end(self, name: str) -> None:
        """A transaction of a pool ends."""
        self.busy[name] -= 1
        heir = self.fair.next_for(name)
        if heir == name:
            self.shares[name].idle += 1
        else:
            assert isinstance(heir, str)
            self.fair.closed(name)
            self.serve(heir)
        self.serve(name)

    def check(self, total_max: int) -> None:
        assert self.fair.total == sum(share.held for share in self.shares.values()) <= total_max
        for name, share in self.shares.items():
            assert share.held == share.idle + self.busy[name] <= share.size_max


steps = st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=120)


@given(
    total_max=st.integers(1, 6),
    sizes=st.fixed_dictionaries({name: st.integers(1, 5) for name in NAMES}),
    steps=steps,
)
def test_the_bounds_hold_and_everybody_is_served(
    total_max: int, sizes: dict[str, int], steps: list[tuple[str, bool]]
) -> None:
    pools = Pools(total_max, sizes)
    for name, is_end in steps:
        if is_end and pools.busy[name]:
            pools.end(name)
        elif not is_end:
            pools.want(name)
        pools.check(total_max)
    # As long as transactions end, nobody is left behind.
    for _ in range(10_000):
        busy = [name for name in NAMES if pools.busy[name]]
        if not busy:
            break
        pools.end(busy[0])
        pools.check(total_max)
    assert not any(share.waiting for share in pools.shares.values())


def test_a_pool_that_never_rests_passes_its_only_session_on_after_a_turn() -> None:
    pools = Pools(1, {"a": 5, "b": 5})
    pools.want("a")
    pools.want("b")
    for _ in range(TURN_USES * 4):
        pools.want("a")
    ends = 0
    while not pools.served["b"]:
        pools.end("a")
        ends += 1
    assert ends == TURN_USES


def test_pools_that_both_want_more_than_there_is_end_with_half_each() -> None:
    pools = Pools(6, {"a": 6, "b": 6})
    for _ in range(50):
        pools.want("a")
    for _ in range(50):
        pools.want("b")
    for _ in range(20):
        pools.end("a" if pools.busy["a"] else "b")
    assert (pools.busy["a"], pools.busy["b"]) == (3, 3)


def test_an_idle_session_of_another_pool_is_taken_before_anybody_waits() -> None:
    pools = Pools(1, {"a": 1, "b": 1})
    pools.want("a")
    pools.end("a")
    pools.want("b")
    assert (pools.busy["a"], pools.busy["b"]) == (0, 1)


def test_a_pool_is_forgotten_only_once_it_holds_and_wants_nothing() -> None:
    pools = Pools(1, {"a": 1})
    pools.want("a")
    pools.fair.leave("a")
    assert pools.fair.share("a", 1) is pools.shares["a"]
    pools.end("a")
    pools.shares["a"].idle -= 1
    pools.fair.closed("a")
    pools.fair.leave("a")
    assert pools.fair.share("a", 1) is not pools.shares["a"]
