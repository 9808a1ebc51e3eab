"""Answers that are streamed in pieces, made by blocking code, whatever `Accept` asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import cast

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class AnyAccept(DefaultContentNegotiation):
    """The content is bytes and a refusal is a problem, whatever `Accept` asks for."""

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        first = next(iter(renderers))
        return first, first.media_type


class PieceStream(StreamingHttpResponse):
    """Streams blocking pieces from a thread; Django itself would collect them all in memory."""

    def __init__(
        self, content: Iterator[bytes], headers: dict[str, str], *, content_type: str
    ) -> None:
        super().__init__(content, content_type=content_type, headers=headers)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = iter(cast(Iterator[bytes], self.streaming_content))
        step = sync_to_async(lambda: next(pieces, b""), thread_sensitive=False)
        while piece := await step():
            yield piece
