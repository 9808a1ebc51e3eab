"""The line engine in real processes: `python -m tests.dataplane.line_process worker 0 | master`.

`TEST_ENGINE` names another engine to be served instead.
`TEST_BOUNDS` and `TEST_INTERVALS` are JSON objects that replace fields of the configuration.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys

from dataplane import worker
from dataplane.config import Bounds, Config, Intervals, config_from
from dataplane.master import Master
from dataplane.observe import log
from engines import registry
from engines.keyvalue.engine import ENGINE as KEYVALUE
from engines.kit.contract import EngineSpec
from tests.dataplane import line_engine, whole_engine


def engine() -> EngineSpec:
    name = os.environ.get("TEST_ENGINE", line_engine.ENGINE.name)
    own = {spec.name: spec for spec in (line_engine.ENGINE, whole_engine.ENGINE, KEYVALUE)}
    return own[name] if name in own else registry.load(name)


def config() -> Config:
    return dataclasses.replace(
        config_from((engine(),)),
        bounds=Bounds(**json.loads(os.environ.get("TEST_BOUNDS", "{}"))),
        intervals=Intervals(**json.loads(os.environ.get("TEST_INTERVALS", "{}"))),
    )


def main() -> int:
    if sys.argv[1] == "worker":
        worker.prepare_process()
        return worker.run(config(), (engine(),), int(sys.argv[2]))
    log.configure("info", log.LineWriter())
    command = [sys.executable, "-m", "tests.dataplane.line_process", "worker"]
    return Master(config(), lambda number: [*command, str(number)]).run()


if __name__ == "__main__":
    sys.exit(main())
