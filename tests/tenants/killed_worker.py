"""A Celery worker whose processes end by SIGKILL at every step of every operation, once at each.

    within   a step, or its undoing, has done its work; nothing of it is committed yet
    sliced   bytes were moved that no commit knows of
    after    a step is done and committed, the next has not begun

The folder `KILLS` has one file for each kill. `celery -A tests.tenants.killed_worker worker`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import django
from celery.signals import worker_process_init

django.setup()  # what follows has models

from tenants.operations.job import Job, Kind, Step, Work  # noqa: E402
from weftkit_site.celery import app  # noqa: E402

__all__ = ["app"]


def die_once(operation_id: UUID, name: str, moment: str) -> None:
    """End this process if it has not ended at this point before."""
    mark = Path(os.environ["KILLS"]) / f"{operation_id} {name} {moment}"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(step: Step) -> Step:
    """Return the step with its kills."""

    def do(job: Job) -> Any:
        answer = step.do(job)
        die_once(job.own_id, step.name, "within")
        if not isinstance(answer, Work):
            return answer

        def slice_and_die() -> None:
            answer.slice()
            die_once(job.own_id, step.name, "sliced")

        return replace(answer, slice=slice_and_die)

    def undo(job: Job) -> None:
        assert step.undo is not None
        step.undo(job)
        die_once(job.own_id, step.name, "undo")

    return replace(step, do=do, undo=None if step.undo is None else undo)


@worker_process_init.connect
def arm(**_: Any) -> None:
    """Put the kills into the operations of this process."""
    from tenants.operations import runner

    kinds: Mapping[str, Kind] = {
        name: replace(kind, steps=tuple(deadly(step) for step in kind.steps))
        for name, kind in runner.KINDS.items()
    }
    runner.KINDS = kinds  # type: ignore[misc]
    runner._advance = dying_between(runner._advance)


def dying_between(advance: Callable[..., Any]) -> Callable[..., Any]:
    """Return `advance` with a kill after each step's commit."""

    def advance_and_die(operation_id: UUID, token: UUID) -> Any:
        from tenants.operations.models import Operation
        from tenants.operations.runner import Progress

        progress = advance(operation_id, token)
        if progress is Progress.ADVANCED:
            operation = Operation.objects.get(pk=operation_id)
            done = operation.steps.filter(state="done").last()
            if done is not None and operation.state == "running":
                die_once(operation_id, done.name, "after")
        return progress

    return advance_and_die
