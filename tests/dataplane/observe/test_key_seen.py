"""When keys were last used."""

from __future__ import annotations

from dataplane.observe import key_seen
from dataplane.observe.key_seen import KeySeen


def test_the_last_time_is_handed_over_once() -> None:
    seen = KeySeen()
    seen.note("a", 1.0)
    seen.note("a", 2.0)
    assert seen.take() == {"a": 2.0}
    assert seen.take() == {}


def test_what_could_not_be_written_comes_again_unless_it_is_older() -> None:
    seen = KeySeen()
    seen.note("a", 1.0)
    seen.note("b", 1.0)
    taken = seen.take()
    seen.note("a", 2.0)
    seen.give_back(taken)
    assert seen.take() == {"a": 2.0, "b": 1.0}


def test_the_number_of_keys_is_bounded() -> None:
    seen = KeySeen()
    for number in range(key_seen.KEYS_MAX + 5):
        seen.note(str(number), 1.0)
    assert len(seen.take()) == key_seen.KEYS_MAX
