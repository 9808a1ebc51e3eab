"""A person at a whole WeftKit: from an empty form to a working connection, and what comes after.

The browser does what a person does; drivers connect with what the pages show, as it stands there.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

import psycopg
import redis
from playwright.sync_api import Browser, Page, expect

from tests.clients.keyvalue.aws_cli import run_shell
from tests.clients.node.programs import run_source
from tests.console.browser import Person, axe_violations, overflow_px, sign_in
from tests.servers import wait_until
from tests.stack import Stack

# Provisioning on two busy cores.
READY_MS = 60_000
# Usage is taken in every five seconds.
USAGE_MS = 30_000


def create_instance(
    owner: Person, name: str, engine: str, plan: str = "Lite", tenant: str = "demo"
) -> Page:
    """Fill the form, see the price, send it, and wait on the page until it is in service."""
    page = owner.open(f"/t/{tenant}/instances/new")
    page.get_by_label(engine).check()
    page.get_by_label(plan).check()
    page.get_by_label("Name").fill(name)
    expect(page.locator("#price dd").first).to_contain_text(re.compile(r"\d+\.\d\d [A-Z]{3}"))
    page.get_by_role("button", name="Create the instance").click()
    page.wait_for_url(f"**/instances/{tenant}-{name}")
    expect(page.locator("#instance-state .badge").first).to_have_text("active", timeout=READY_MS)
    return page


def create_credential(page: Page, handle: str, role: str = "Admin") -> str:
    """Make a credential on the page; return the connection string that it shows once."""
    page.get_by_role("link", name="Credentials").click()
    page.get_by_label("Label").fill("end to end")
    page.get_by_label("Role").select_option(label=role)
    page.get_by_role("button", name="Create the credential").click()
    page.get_by_role("heading", name="The new secret").wait_for()
    return str(page.locator("#uri").text_content())


def connects(uri: str) -> bool:
    """Say whether the data plane lets this in; it learns of a new credential within a second."""
    try:
        with psycopg.connect(uri, connect_timeout=5) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def test_from_sign_up_to_a_working_connection_string(stack: Stack, chromium: Browser) -> None:
    """The first person of an installation needs nobody else."""
    visitor = sign_in(chromium, stack.document["console"]["url"].rstrip("/"), None)
    page = visitor.open("/sign-in")
    page.get_by_role("link", name="Make an account").click()
    page.get_by_label("E-mail address").fill("grace@example.org")
    page.get_by_label("Organisation").fill("graceco")
    page.get_by_label("Password").fill("a long and quiet evening")
    page.get_by_role("button", name="Make it").click()
    page.wait_for_url("**/t/graceco/")
    page = create_instance(visitor, "first", "Relational", tenant="graceco")
    uri = create_credential(page, "graceco-first")
    wait_until(lambda: connects(uri), "the new credential connects", 5)
    with psycopg.connect(uri) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 42 AS n")
        assert connection.execute("SELECT n FROM mine").fetchone() == (42,)
    visitor.context.close()
    assert not visitor.faults


def test_from_an_empty_form_to_a_program_that_connects(owner: Person) -> None:
    page = create_instance(owner, "shop", "Relational")
    uri = create_credential(page, "demo-shop")
    wait_until(lambda: connects(uri), "the new credential connects", 5)
    page.get_by_role("tab", name="Python: psycopg").click()
    program = str(page.locator("#snippet-psycopg").text_content())
    assert uri in program
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PostgreSQL 18")
    for name in ("asyncpg", "sqlalchemy"):
        program = str(page.locator(f"#snippet-{name}").text_content())
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("PostgreSQL 18")


def test_the_key_value_snippets_run_as_printed(owner: Person) -> None:
    page = create_instance(owner, "carts", "Key-value")
    create_credential(page, "demo-carts")
    programs = {
        name: str(page.locator(f"#snippet-{name}").text_content())
        for name in ("boto3", "boto3-resource", "aws-sdk", "aws-cli")
    }

    def run(program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    wait_until(lambda: run(programs["boto3"]).returncode == 0, "the new credential works", 10)
    for name in ("boto3", "boto3-resource"):
        done = run(programs[name])
        assert (done.stdout, done.stderr) == ("[]\n", "")
    assert run_source(programs["aws-sdk"]) == []
    done = run_shell(programs["aws-cli"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"TableNames": []}


def test_a_limit_that_is_hit_is_seen(owner: Person) -> None:
    page = create_instance(owner, "narrow", "Relational")
    uri = create_credential(page, "demo-narrow")
    wait_until(lambda: connects(uri), "the new credential connects", 5)
    refused = 0
    with psycopg.connect(uri, autocommit=True) as connection:
        for _ in range(200):
            try:
                connection.execute("SELECT 1")
            except psycopg.Error:
                refused += 1
    assert refused > 0
    page.get_by_role("link", name="Metrics").click()
    chart = page.locator("[data-title='Units a second']")
    expect(chart).to_have_attribute(
        "aria-label", re.compile(r"Refused [^,]*, at most 0*[1-9.]"), timeout=USAGE_MS
    )


def test_a_key_is_rotated_and_there_is_no_gap(owner: Person) -> None:
    page = create_instance(owner, "turning", "Relational")
    old = create_credential(page, "demo-turning")
    wait_until(lambda: connects(old), "the new credential connects", 5)
    with psycopg.connect(old, autocommit=True) as open_before:
        page.get_by_role("link", name="I have copied it").click()
        page.get_by_role("link", name="Rotate").click()
        page.get_by_label("The old secret lives on for").select_option(label="An hour")
        page.get_by_role("button", name="Make the new secret").click()
        page.get_by_role("heading", name="The new secret").wait_for()
        new = str(page.locator("#uri").text_content())
        assert new != old
        # At every moment one of the two works; from the second on both do.
        assert connects(old)
        wait_until(lambda: connects(new), "the new secret connects", 5)
        assert connects(old)
        assert open_before.execute("SELECT 1").fetchone() == (1,)
    page.get_by_role("link", name="I have copied it").click()
    expect(page.get_by_text("expiring")).to_be_visible()


def run_sql(page: Page, text: str) -> None:
    """Write a text into the console and run it by its key."""
    page.get_by_label("Statement").fill(text)
    page.keyboard.press("Control+Enter")


def test_the_sql_console_reads_writes_cancels_and_keeps_the_draft(
    owner: Person, stack: Stack
) -> None:
    row = stack.connection("demo", "relational")
    with psycopg.connect(row.uri, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS fruit")
    page = owner.open(f"/t/demo/instances/{row.instance}")
    page.get_by_role("link", name="Data", exact=True).click()
    expect(page.locator("#tree")).not_to_contain_text("Reading", timeout=READY_MS)
    results = page.locator("#results")
    run_sql(page, "CREATE TABLE fruit (id int, name text)")
    expect(results).to_contain_text(re.compile("read-only|permission denied"))
    page.get_by_label("May change data").check()
    run_sql(
        page,
        "CREATE TABLE fruit (id int, name text);\n"
        "INSERT INTO fruit VALUES (1, 'apple, red'), (2, NULL);\n"
        "SELECT * FROM fruit ORDER BY id",
    )
    expect(results.locator("tbody td")).to_have_text(["1", "apple, red", "2", "NULL"])
    with page.expect_download() as download:
        results.get_by_role("button", name="CSV").click()
    assert download.value.path().read_text() == 'id,name\n1,"apple, red"\n2,\n'
    page.get_by_role("button", name="Read again").click()
    page.locator("#tree summary", has_text="public.fruit").wait_for()
    run_sql(page, "SELECT generate_series(1, 100000)")
    expect(results).to_contain_text("100 rows; there are more")
    assert axe_violations(page) == []
    assert overflow_px(page) == 0
    run_sql(page, "SELECT nothing FROM fruit")
    expect(results).to_contain_text("42703")
    assert page.evaluate("document.getElementById('text').selectionStart") == len("SELECT ")
    run_sql(page, "SELECT pg_sleep(30)")
    page.get_by_role("button", name="Cancel").click()
    expect(results).to_contain_text("57014")
    page.get_by_label("Statement").fill("SELECT 'a long thought'")
    page.reload()
    expect(page.get_by_label("Statement")).to_have_value("SELECT 'a long thought'")
    # A result that nobody could hold is given up while it comes.
    run_sql(page, "SELECT repeat('x', 20000000)")
    expect(results).to_contain_text("larger than 8 MiB", timeout=READY_MS)


def test_the_key_browser_pages_shows_and_changes(owner: Person, stack: Stack) -> None:
    row = stack.connection("demo", "inmemory")
    client = redis.Redis.from_url(row.uri)
    client.delete("greeting")
    client.mset({f"user:{number}": number for number in range(250)})
    client.hset("basket", mapping={"apple": 2, "pear": 3})
    client.set(b"\xff\x00", b"\xfe")
    page = owner.open(f"/t/demo/instances/{row.instance}")
    page.get_by_role("link", name="Data", exact=True).click()
    listed = page.locator("#keys-list tbody tr")
    expect(listed.first).to_be_visible(timeout=READY_MS)
    page.get_by_role("button", name="Further keys").click()
    expect(page.get_by_role("button", name="From the beginning")).to_be_visible()
    page.get_by_label("Pattern").fill("bask*")
    with page.expect_response("**/data"):
        page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("button", name="user:")).to_have_count(0)
    seen = page.get_by_role("button", name="basket")
    while not seen.is_visible():
        with page.expect_response("**/data"):
            page.get_by_role("button", name="Further keys").click()
        expect(page.locator(".htmx-swapping, .htmx-settling, .htmx-request")).to_have_count(0)
    seen.click()
    expect(page.locator("#value tbody tr")).to_have_count(2)
    assert axe_violations(page) == []
    page.get_by_text("New string").click()
    page.get_by_label("Key", exact=True).fill("greeting")
    page.locator("#new-value").fill("hello\nworld")
    page.locator("form:has(#new-value)").get_by_role("button", name="Save").click()
    expect(page.locator("#key-value")).to_have_value("hello\nworld")
    assert client.get("greeting") == b"hello\nworld"
    page.get_by_label("Expires in seconds").fill("500")
    page.get_by_role("button", name="Set", exact=True).click()
    expect(page.locator("#value")).to_contain_text("expires in")
    assert 0 < int(client.ttl("greeting")) <= 500
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete the key").click()
    expect(page.locator("#value")).to_contain_text("The key is deleted.")
    assert client.exists("greeting") == 0
    client.delete("basket", b"\xff\x00", *(f"user:{number}" for number in range(250)))
    client.close()


def succeeded(page: Page) -> None:
    """Wait on an operation's page until it says that it has succeeded."""
    page.wait_for_url("**/operations/*-*")
    badge = page.locator("#operation .badge").first
    expect(badge).to_have_text("succeeded", timeout=READY_MS)


def test_a_backup_is_restored_into_a_new_instance(owner: Person, stack: Stack) -> None:
    row = stack.connection("demo", "inmemory")
    with redis.Redis.from_url(row.uri) as client:
        client.set("kept", "before")
        page = owner.open(f"/t/demo/instances/{row.instance}")
        page.get_by_role("link", name="Backups").click()
        page.get_by_role("button", name="Back up now").click()
        succeeded(page)
        client.set("kept", "after")
    page.goto(f"{owner.address}/t/demo/instances/{row.instance}/backups")
    page.get_by_role("link", name="Restore", exact=True).click()
    page.get_by_label("Name of the new instance").fill("again")
    page.get_by_role("button", name="Restore").click()
    succeeded(page)
    page.get_by_role("link", name="demo-again").click()
    uri = create_credential(page, "demo-again")

    def is_there() -> bool:
        try:
            with redis.Redis.from_url(uri) as restored:
                return restored.get("kept") == b"before"
        except redis.RedisError:
            return False

    wait_until(is_there, "the new instance has what the old one had", 10)
    with redis.Redis.from_url(row.uri) as client:
        assert client.get("kept") == b"after"


def test_the_audit_trail_is_searched_and_exported(owner: Person) -> None:
    page = owner.open("/t/demo/audit")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert len(lines) > 1
    assert any("weftkit.session.start" in line and "owner@demo.local" in line for line in lines)
    assert axe_violations(page) == []
