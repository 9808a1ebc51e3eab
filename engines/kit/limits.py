"""Units per second: the sliding one-second window, in this process and in Redis.

Time is cut into cells of 50 ms and a window is the current cell and the 19 before it, so a limit
holds exactly over 20 cells, and over any moment to one cell. `Window` is the whole truth when a
worker is alone; between workers `LEASE_SCRIPT` keeps the same window in Redis, and each worker
takes a few units at a time (`lease_size`) and spends them without asking.

A request that costs more than the limit could never be admitted. It is let in on an empty window
and is dated forward, so that the window stays full for as many seconds as it has used up.
"""

from __future__ import annotations

CELL_MS = 50
WINDOW_CELLS = 20
# How far ahead a costly request is dated at most: a minute.
AHEAD_CELLS_MAX = 60 * WINDOW_CELLS
# What a lease holds is not spread evenly, so it must be small beside the limit.
LEASES_PER_LIMIT = 20


def lease_size(limit: int) -> int:
    """Return how many units a worker takes at a time: 5 % of the limit, and at least one."""
    return max(1, limit // LEASES_PER_LIMIT)


class Window:
    """The units that were taken in the last second, for one instance and request class."""

    __slots__ = ("_cell", "_cells", "_total")

    def __init__(self) -> None:
        self._cell = 0  # the current one, as of the last call
        # Cell number -> units, in ascending order of cells; and their sum.
        self._cells: dict[int, int] = {}
        self._total = 0

    def take(self, now: float, units: int, limit: int) -> float:
        """Take `units`, or none; return 0.0 if they were granted, else the seconds to wait.

        Args:
            now: monotonic seconds.
            units: at least 1.
            limit: units per second; a changed limit counts from this call on.
        """
        return self.lease(now, limit, needed=units, wanted=units)[1]

    def lease(self, now: float, limit: int, *, needed: int, wanted: int) -> tuple[int, float]:
        """Take up to `wanted` units, or none if there are fewer than `needed`.

        Returns the units that were granted, and the seconds to wait if that is none. The twin of
        `LEASE_SCRIPT`; the tests hold them equal.
        """
        now_ms = round(now * 1000)
        cell = now_ms // CELL_MS
        self._forget(cell)
        free = limit - self._total
        if free >= needed:
            granted = min(wanted, free)
            self._add(cell, granted)
            return granted, 0.0
        if needed > limit > 0 and self._total == 0:
            ahead = min(AHEAD_CELLS_MAX, -(-needed * WINDOW_CELLS // limit) - WINDOW_CELLS)
            self._add(cell + ahead, needed)
            return needed, 0.0
        return 0, self._wait_ms(now_ms, limit, needed) / 1000

    def give_back(self, now: float, units: int) -> None:
        """Return units that were taken and not used; what has left the window stays lost."""
        self._forget(round(now * 1000) // CELL_MS)
        for cell in reversed(list(self._cells)):
            returned = min(units, self._cells[cell])
            self._add(cell, -returned)
            units -= returned

    def _add(self, cell: int, units: int) -> None:
        self._cells[cell] = self._cells.get(cell, 0) + units
        self._total += units

    def _forget(self, cell: int) -> None:
        """Drop the cells that have left the window, or that a clock set back has left behind."""
        cells = self._cells
        if cell == self._cell:
            return
        self._cell = cell
        oldest, newest = cell - WINDOW_CELLS + 1, cell + AHEAD_CELLS_MAX
        for each in [each for each in cells if not oldest <= each <= newest]:
            self._total -= cells.pop(each)

    def _wait_ms(self, now_ms: int, limit: int, needed: int) -> int:
        """Return when enough cells have left the window, if nobody takes any units until then."""
        # All of it must go for a request that is greater than the limit.
        excess = self._total + min(needed, max(limit, 0)) - limit
        for cell in sorted(self._cells):
            excess -= self._cells[cell]
            if excess <= 0:
                return (cell + WINDOW_CELLS) * CELL_MS - now_ms
        # Nothing is ever granted by a limit of 0: ask again in a second.
        return WINDOW_CELLS * CELL_MS


# The same window in Redis (6.2 or later, one key, so also on a cluster): a hash of cell -> units
# under a key of one instance and class.
#
#   KEYS[1]  the window
#   ARGV     limit, needed, wanted, and for tests the time in ms instead of Redis's own
#   returns  {granted, ms to wait}
LEASE_SCRIPT = f"""
local limit, needed, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(ARGV[4])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local cell = math.floor(now / {CELL_MS})
local stored = redis.call('HGETALL', KEYS[1])
local cells, total, gone, newest = {{}}, 0, {{}}, cell
for i = 1, #stored, 2 do
  local number, units = tonumber(stored[i]), tonumber(stored[i + 1])
  if number <= cell - {WINDOW_CELLS} or number > cell + {AHEAD_CELLS_MAX} then
    gone[#gone + 1] = stored[i]
  else
    cells[#cells + 1] = {{number, units}}
    total = total + units
    newest = math.max(newest, number)
  end
end
if #gone > 0 then
  redis.call('HDEL', KEYS[1], unpack(gone))
end
local granted, target = 0, cell
local free = limit - total
if free >= needed then
  granted = math.min(wanted, free)
elseif needed > limit and limit > 0 and total == 0 then
  granted = needed
  local ahead = math.ceil(needed * {WINDOW_CELLS} / limit) - {WINDOW_CELLS}
  target = cell + math.min({AHEAD_CELLS_MAX}, ahead)
end
if granted > 0 then
  redis.call('HINCRBY', KEYS[1], string.format('%d', target), granted)
  newest = math.max(newest, target)
  redis.call('PEXPIRE', KEYS[1], (newest - cell + {WINDOW_CELLS}) * {CELL_MS} + 1000)
  return {{granted, 0}}
end
table.sort(cells, function(a, b) return a[1] < b[1] end)
local excess = total + math.min(needed, math.max(limit, 0)) - limit
for _, entry in ipairs(cells) do
  excess = excess - entry[2]
  if excess <= 0 then
    return {{0, (entry[1] + {WINDOW_CELLS}) * {CELL_MS} - now}}
  end
end
return {{0, {WINDOW_CELLS * CELL_MS}}}
"""
