"""schemathesis asks the live API what its OpenAPI document allows, what it forbids, and in chains.

No answer may be a 500, none may be what the document does not declare: status, content type, body.
Addresses name things that exist, so that requests get past the first 404.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.kit.tasks import FILES_DIRECTORY
from tenants.iam.services import api_key_create
from tests.tenants.cast import Cast
from tests.tenants.test_api_isolation import scene_of

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
# How nonsense may be refused; a failed condition, for one, is told before the body is looked at.
REJECTED = """[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 423, 428]"""
# Each run: the seed, so that a finding can be had again, and how many examples an operation gets.
SEED, EXAMPLES = 4, 4
# Chains: of instances, credentials, operations and backups, for so long.
CHAINED = "^(instance|credential|operation|backup)_"
CHAINS_SECONDS = 20


@pytest.fixture(autouse=True)
def _as_the_server(settings: Any, servers_home: Path) -> None:
    """Keep files where the live server looks for them, and do not wait for hosts."""
    files = settings.STORAGES["files"]
    there = {**files["OPTIONS"], "location": servers_home / "fuzz" / FILES_DIRECTORY}
    settings.STORAGES = {**settings.STORAGES, "files": {**files, "OPTIONS": there}}
    settings.OPERATION_WAIT_IN_TASK_S = 0


def config_of(arguments: dict[str, Any]) -> str:
    lines = [f'"path.{name}" = {json.dumps(str(value))}' for name, value in arguments.items()]
    return "\n".join(["[parameters]", *lines, "", REJECTED, ""])


@pytest.mark.timeout(420)
def test_no_500_no_undeclared_answer_and_no_nonsense_accepted(
    live: str, lasting_cast: Cast, tmp_path: Path
) -> None:
    arguments = scene_of(lasting_cast).arguments
    run(
        live, lasting_cast, tmp_path, arguments,
        "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES),
    )  # fmt: skip


@pytest.mark.timeout(180)
def test_chains_of_requests_that_follow_the_links(
    live: str, lasting_cast: Cast, tmp_path: Path
) -> None:
    arguments = scene_of(lasting_cast).arguments
    # What a chain makes is what its next request names; only the tenant is given.
    run(
        live, lasting_cast, tmp_path, {"tenant": arguments["tenant"]},
        "--phases", "stateful", "--max-time", str(CHAINS_SECONDS),
        "--include-operation-id-regex", CHAINED,
    )  # fmt: skip


def run(live: str, cast: Cast, directory: Path, arguments: dict[str, Any], *options: str) -> None:
    token = api_key_create(actor=cast.owner, name="fuzz", is_own=True).token
    config = directory / "schemathesis.toml"
    config.write_text(config_of(arguments))
    document = directory / "openapi.yaml"
    document.write_bytes(httpx.get(f"{live}/api/v1/schema").content)
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(config),
            "run", str(document), "--url", live, "--checks", ",".join(CHECKS),
            *options, "--seed", str(SEED),
            "--header", f"Authorization: Bearer {token}", "--continue-on-failure",
            "--suppress-health-check", "all", "--generation-database", "none", "--no-color",
        ],
        capture_output=True, text=True, cwd=directory, timeout=400,
    )  # fmt: skip
    (directory / "output.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
