"""When a key was last used: remembered on sign-in and at the end, written in batches."""

from __future__ import annotations

# Keys between two flushes; a key that does not fit is seen again at its next use.
KEYS_MAX = 100_000


class KeySeen:
    """The times that the database does not know yet."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}

    def note(self, key_id: str, now: float) -> None:
        """Remember that the key is in use now."""
        if key_id in self._times or len(self._times) < KEYS_MAX:
            self._times[key_id] = now

    def take(self) -> dict[str, float]:
        """Hand over what is to be written."""
        taken, self._times = self._times, {}
        return taken

    def give_back(self, taken: dict[str, float]) -> None:
        """Keep what could not be written, unless the key was used again meanwhile."""
        self._times = {**taken, **self._times}
