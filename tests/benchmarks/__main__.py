"""Rates and CPU times of the data plane beside its peers', all in one run, as ratios.

    make bench                                      # everything, about 25 minutes
    make bench ONLY='-S simple c=8' SECONDS=3       # the works whose name holds these words
    make bench ONLY=parts                           # what framing, admission and metering cost
    make bench ONLY=keyvalue                        # DynamoDB's API, also against dynalite and moto
    make bench ONLY=pages                           # the control plane's pages

Nothing here asserts: rates drift with the machine, ratios can be compared, and the CPU time that a
proxy spends on a request is the figure that neighbours disturb least.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence

from dataplane import native
from tests.benchmarks import keyvalue, pages, postgres, redis, relay_cost, table
from tests.benchmarks.keyvalue_ways import KeyvalueWays
from tests.benchmarks.measure import Track, Way, Work, contest
from tests.benchmarks.postgres_ways import PostgresWays
from tests.benchmarks.redis import RedisWays
from tests.stack import Stack, run_stack

PARTS = "parts"
Opener = Callable[[Stack, contextlib.ExitStack], Callable[[str], Way]]
SECTIONS: tuple[tuple[Opener, Sequence[Work]], ...] = (
    (PostgresWays, postgres.WORKS),
    (RedisWays, redis.WORKS),
)


def measure(only: str, seconds: int, rounds: int) -> list[tuple[Work, Sequence[Track]]]:
    """Run the works that are asked for against one stack; print each when it is done."""
    outcome: list[tuple[Work, Sequence[Track]]] = []
    chosen = [[work for work in works if only in work.name] for _, works in SECTIONS]
    own = [work for work in keyvalue.WORKS if only in work.name]
    if own:
        with contextlib.ExitStack() as held:
            outcome += _run(own, KeyvalueWays(held), seconds, rounds)
    if not any(chosen):
        return outcome
    with run_stack(WEFTKIT_WORKERS="1") as stack:
        for (opener, _), works in zip(SECTIONS, chosen, strict=True):
            with contextlib.ExitStack() as held:
                outcome += _run(works, opener(stack, held), seconds, rounds)
    return outcome


def _run(
    works: Sequence[Work], ways: Callable[[str], Way], seconds: int, rounds: int
) -> list[tuple[Work, Sequence[Track]]]:
    outcome = []
    for work in works:
        tracks = contest(work, ways, rounds=rounds, seconds=seconds)
        outcome.append((work, tracks))
        _print(table.block(work, tracks))
    return outcome


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default="", help="words of a work's name, or `parts`, or `pages`")
    parser.add_argument("--seconds", type=int, default=2, help="of one run of one way")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--list", action="store_true", help="print the works' names")
    arguments = parser.parse_args()
    if arguments.list:
        names = [work.name for _, works in SECTIONS for work in works]
        names += [work.name for work in keyvalue.WORKS]
        _print("\n".join([PARTS, pages.WORDS, *names, ""]))
        return
    compiled = len(native.compiled())
    _print(f"hot modules: {compiled} of {len(native.MODULES)} compiled; one data-plane worker\n")
    if arguments.only in ("", PARTS):
        _print(relay_cost.report())
    if arguments.only in ("", pages.WORDS):
        _print(pages.report())
    outcome = measure(arguments.only, arguments.seconds, arguments.rounds)
    if outcome:
        _print(table.summary(outcome))
    elif arguments.only not in (PARTS, pages.WORDS):
        sys.exit(f"no work has {arguments.only!r} in its name; --list prints them")


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
