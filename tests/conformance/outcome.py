"""The outcome of a suite's run, and the comparison of two of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a suite said of one of its cases."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Case:
    """One case: the verdict, and why where it did not pass."""

    verdict: Verdict
    reason: str = ""


Outcome = Mapping[str, Case]


def totals(outcome: Outcome) -> str:
    """Return "1 passed, 2 failed, 3 skipped"."""
    counts = Counter(case.verdict for case in outcome.values())
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)


def report_of(outcome: Outcome, by_design: Mapping[str, str]) -> tuple[str, bool]:
    """Return a report of one run, and whether it ran and only those failed that shall."""
    lines = []
    unexpected = 0
    for name, case in sorted(outcome.items()):
        if case.verdict is Verdict.FAILED and name in by_design:
            lines.append(f"by design {name}: {by_design[name]}")
        elif case.verdict is not Verdict.PASSED:
            unexpected += case.verdict is Verdict.FAILED
            lines.append(f"{case.verdict} {name}: {case.reason}")
    has_run = any(case.verdict is Verdict.PASSED for case in outcome.values())
    return "\n".join([*lines, totals(outcome), ""]), has_run and not unexpected


def compare(direct: Outcome, through: Outcome, by_design: Mapping[str, str]) -> tuple[str, bool]:
    """Return a report, and whether every case that passes directly passes through us too.

    A suite of which nothing passes directly has not run. `by_design` names the cases
    that shall not pass through us, and says why.
    """
    lines = [f"direct:  {totals(direct)}", f"through: {totals(through)}"]
    differing = 0
    for name in sorted(direct.keys() | through.keys()):
        ours = through.get(name, Case(Verdict.FAILED, "did not run"))
        theirs = direct.get(name, Case(Verdict.FAILED, "did not run"))
        if ours.verdict is Verdict.PASSED:
            continue
        if theirs.verdict is Verdict.PASSED and name in by_design:
            lines.append(f"by design {name}: {by_design[name]}")
        elif theirs.verdict is Verdict.PASSED:
            differing += 1
            lines.append(f"DIFFERS  {name}: {ours.verdict}: {ours.reason}")
        else:
            lines.append(f"as direct {ours.verdict} {name}: {ours.reason}")
    lines.append(f"{differing} cases differ\n")
    has_run = any(case.verdict is Verdict.PASSED for case in direct.values())
    return "\n".join(lines), has_run and differing == 0
