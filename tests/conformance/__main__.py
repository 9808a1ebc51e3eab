"""Run another project's test suite through the data plane, and say what does not pass.

    make conformance SUITE=psycopg CHECKOUT=/path/to/psycopg
    make conformance SUITE=redis CHECKOUT=/path/to/redis            # the relay, with every right
    make conformance SUITE=redis-as-admin CHECKOUT=/path/to/redis   # the product's own ACL
    make conformance SUITE=dynalite CHECKOUT=/path/to/dynalite ONLY=putItem
    make conformance SUITE=dynamodb-pytest CHECKOUT=/path/to/suite

The checkout is never part of this project. Where we relay, the oracle is the same suite on the same
instance server without the data plane between: only what differs is ours, and is printed with the
reason. Where we translate, the suite's own expectations are the oracle.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.conformance import dynalite_suite, dynamodb_pytest_suite, psycopg_suite, redis_suite
from tests.conformance.outcome import compare, report_of
from tests.stack import run_stack

SUITES = {
    "psycopg": psycopg_suite.run,
    "redis": redis_suite.run,
    "redis-as-admin": redis_suite.run_as_admin,
}
# Suites that say themselves what is right.
ALONE = {
    "dynalite": dynalite_suite.run,
    "dynamodb-pytest": dynamodb_pytest_suite.run,
}


def main() -> None:
    """Run one suite; exit with 1 if the two runs differ, or if a case fails that has no twin."""
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__)
    parser.add_argument("suite", choices=sorted({**SUITES, **ALONE}))
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--only", default="", help="a part of the suite, in its own words")
    arguments = parser.parse_args()
    if not arguments.checkout.is_dir():
        sys.exit(f"no such checkout: {arguments.checkout}")
    with run_stack(WEFTKIT_WORKERS="1") as stack:
        if arguments.suite in ALONE:
            outcome = ALONE[arguments.suite](stack, arguments.checkout, arguments.only)
            report, is_well = report_of(outcome, dynalite_suite.BY_DESIGN)
        else:
            direct, through = SUITES[arguments.suite](stack, arguments.checkout, arguments.only)
            report, is_well = compare(direct, through, redis_suite.BY_DESIGN)
    sys.stdout.write(report)
    sys.exit(0 if is_well else 1)


if __name__ == "__main__":
    main()
