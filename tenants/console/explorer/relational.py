"""The SQL console: a text, a switch for reading only, limits, results, and the tree of tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from django.http import HttpRequest, HttpResponse

from engines.kit.records import Role
from tenants.console.explorer import sql
from tenants.console.explorer.running import running
from tenants.console.explorer.view import Explorer

SECONDS = (5, 10, 30, 60)
ROWS = (100, 500, 1000)
RUN_ID = re.compile(r"[a-z0-9-]{8,40}")
TABLES_MAX = 300
TREE = f"""
SELECT n.nspname, c.relname, c.relkind::text,
       coalesce((SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), E'\\n'
                                   ORDER BY a.attnum)
                 FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum BETWEEN 1 AND 60 AND NOT a.attisdropped), '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^(pg_|information_schema$)'
ORDER BY 1, 2 LIMIT {TABLES_MAX}
"""  # noqa: S608 (the one value is ours)
KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view",
         "f": "foreign table"}  # fmt: skip


class SqlExplorer(Explorer):
    template = "console/data_sql.html"

    def get(self, request: HttpRequest) -> HttpResponse:
        return self.answer({"seconds": SECONDS, "rows": ROWS})

    def post(self, request: HttpRequest) -> HttpResponse:
        wanted = request.POST.get("do", "")
        return self.deeds.get(wanted, SqlExplorer._run)(self, request)

    def _run(self, request: HttpRequest) -> HttpResponse:
        text = request.POST.get("text", "")
        if not text.strip():
            return self._failed("There is nothing to run.")
        if len(text) > sql.TEXT_CHARACTERS_MAX or "\0" in text:
            return self._failed(f"At most {sql.TEXT_CHARACTERS_MAX} characters, and no NUL.")
        writes = self.may_write and request.POST.get("write") == "on"
        run = sql.sql_run(
            access=self.view.access(Role.ADMIN if writes else Role.READ),
            text=text,
            who=self.view.actor.name,
            run_id=_run_id(request),
            seconds=_choice(request, "seconds", SECONDS, 10),
            rows=_choice(request, "rows", ROWS, 100),
        )
        return self.answer({"run": run}, template="console/data_sql_part.html")

    def _cancel(self, request: HttpRequest) -> HttpResponse:
        running().cancel(self.view.actor.name, _run_id(request))
        said = "The server is asked to cancel."
        return self.view.toast(HttpResponse(status=204), said, "info")

    def _tree(self, request: HttpRequest) -> HttpResponse:
        run = sql.sql_run(
            access=self.view.access(Role.READ),
            text=TREE,
            who=self.view.actor.name,
            run_id=_run_id(request),
            rows=TABLES_MAX,
        )
        tables = [
            {"name": f"{row[0]}.{row[1]}", "kind": KINDS.get(row[2] or "", ""),
             "columns": (row[3] or "").splitlines()}
            for result in run.results for row in result.rows
        ]  # fmt: skip
        context = {"tables": tables, "failure": run.failure, "is_cut": len(tables) >= TABLES_MAX}
        return self.answer(context, template="console/data_tree_part.html")

    def _failed(self, message: str) -> HttpResponse:
        run = sql.Run(failure=sql.Failure(message))
        return self.answer({"run": run}, template="console/data_sql_part.html", status=422)

    deeds: Mapping[str, Callable[[SqlExplorer, HttpRequest], HttpResponse]] = {
        "cancel": _cancel,
        "run": _run,
        "tree": _tree,
    }


def _run_id(request: HttpRequest) -> str:
    given = request.POST.get("run_id", "")
    return given if RUN_ID.fullmatch(given) else "without-id"


def _choice(request: HttpRequest, name: str, allowed: tuple[int, ...], default: int) -> int:
    given = request.POST.get(name, "")
    return int(given) if given.isdecimal() and int(given) in allowed else default
