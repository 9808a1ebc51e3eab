"""The printed tables: a block for each work, then the ratios of the whole run side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.benchmarks.measure import Track, Work

OURS = "weftkit"
HEADING = (
    f"{'':28}{'per second':>12}  {'proxy us':>9}{'server us':>10}{'client us':>10}{'others':>8}"
)


def block(work: Work, tracks: Sequence[Track]) -> str:
    """Return the figures of one work, a line a way, and our ratios below."""
    lines = [f"\n{work.name} ({work.unit})", HEADING]
    lines += [_figures(track) for track in tracks]
    lines += [f"  {line}" for line in ratios(tracks)]
    return "\n".join(lines) + "\n"


def _figures(track: Track) -> str:
    if track.absence:
        return f"  {track.name:26}{track.absence}"
    rate, proxy, server, client, others = (
        track.median(figure)
        for figure in ("per_second", "proxy_us", "server_us", "client_us", "others_cores")
    )
    own = f"{proxy:9.2f}" if proxy else f"{'-':>9}"
    mark = "~" if track.is_disturbed else ""
    return f"  {track.name:26}{rate:12.0f}  {own}{server:10.2f}{client:10.2f}{others:7.2f}{mark}"


def ratios(tracks: Sequence[Track]) -> Iterator[str]:
    """Yield a line for each way of ours: its rate, and its CPU time, divided by each other's."""
    measured = [track for track in tracks if not track.absence]
    for mine in measured:
        if not mine.name.startswith(OURS):
            continue
        cells = []
        for other in measured:
            if other is mine or other.name.startswith(OURS):
                continue
            rate, cpu = mine.ratio(other, "per_second"), mine.ratio(other, "proxy_us")
            mark = "~" if mine.is_disturbed or other.is_disturbed else ""
            cells.append(f"{other.name} {rate:.2f}{mark}" + (f" (CPU {cpu:.2f})" if cpu else ""))
        yield f"{mine.name} / " + ", ".join(cells)


def summary(outcome: Sequence[tuple[Work, Sequence[Track]]]) -> str:
    """Return the ratios of all works, one below the other."""
    lines = ["\nratios: rate of ours / rate of the other; CPU: ours / the other's, a request"]
    for work, tracks in outcome:
        lines += [f"  {work.name:32} {line}" for line in ratios(tracks)]
    lines.append("~ others used over 0.2 of a core in most rounds: take the CPU figures")
    return "\n".join(lines) + "\n"
