"""The published records of every instance, indexed for sign-in. Changed only by the follower.

Versions only rise: an older row that arrives late changes nothing. Subscribers hear of each change
in the same call, so that by its end gates and live sessions agree with the record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engines.kit.records import Credential, InstanceRecord

# (before, after): None before the first and after the last record of an instance.
Subscriber = Callable[[InstanceRecord | None, InstanceRecord | None], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One record and the JSON text that it was read from, which is what the snapshot keeps."""

    record: InstanceRecord
    body: str


class RecordTable:
    """All records by id, handle, key id and user name."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._by_handle: dict[str, InstanceRecord] = {}
        self._by_key: dict[str, tuple[InstanceRecord, Credential]] = {}
        self._by_user: dict[tuple[str, str], Credential] = {}
        self._defaults: dict[str, InstanceRecord] = {}
        self._subscribers: list[Subscriber] = []
        self.storage_bytes: dict[str, int] = {}

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber` on every change from now on."""
        self._subscribers.append(subscriber)

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[Entry]:
        """Return what the snapshot shall hold."""
        return list(self._entries.values())

    def versions(self) -> dict[str, int]:
        """Return instance id -> version."""
        return {key: entry.record.version for key, entry in self._entries.items()}

    def get(self, instance_id: str) -> InstanceRecord | None:
        """Return the record with this id."""
        entry = self._entries.get(instance_id)
        return entry.record if entry else None

    def by_handle(self, handle: str) -> InstanceRecord | None:
        """Return the record with this handle, of whatever engine."""
        return self._by_handle.get(handle)

    def by_key(self, key_id: str) -> tuple[InstanceRecord, Credential] | None:
        """Return the one credential with this key id, and its instance."""
        return self._by_key.get(key_id)

    def by_user(self, instance_id: str, username: str) -> Credential | None:
        """Return the credential with this user name in the instance."""
        return self._by_user.get((instance_id, username))

    def default(self, engine: str) -> InstanceRecord | None:
        """Return the instance that answers plain user names of this engine."""
        return self._defaults.get(engine)

    def put(self, entry: Entry) -> bool:
        """Take a record unless it is not newer than the one that is known."""
        new = entry.record
        old = self.get(new.instance_id)
        if old is not None and old.version >= new.version:
            return False
        if old is not None:
            self._unindex(old)
        self._entries[new.instance_id] = entry
        self._index(new)
        self._tell(old, new)
        return True

    def remove(self, instance_id: str) -> bool:
        """Forget an instance."""
        entry = self._entries.pop(instance_id, None)
        if entry is None:
            return False
        self._unindex(entry.record)
        self.storage_bytes.pop(instance_id, None)
        self._tell(entry.record, None)
        return True

    def observe(self, instance_id: str, storage_bytes: int) -> None:
        """Note how large the host found the instance to be."""
        record = self.get(instance_id)
        if record is not None and self.storage_bytes.get(instance_id) != storage_bytes:
            self.storage_bytes[instance_id] = storage_bytes
            self._tell(record, record)

    def _index(self, record: InstanceRecord) -> None:
        self._by_handle[record.handle] = record
        if record.is_default:
            self._defaults[record.engine] = record
        for credential in record.credentials:
            # Key ids are unique everywhere; user names only inside their instance.
            self._by_key[credential.key_id] = (record, credential)
            self._by_user[record.instance_id, credential.username] = credential

    def _unindex(self, record: InstanceRecord) -> None:
        # An index may already point to another record: a handle can move between instances.
        if self._by_handle.get(record.handle) is record:
            del self._by_handle[record.handle]
        if self._defaults.get(record.engine) is record:
            del self._defaults[record.engine]
        for credential in record.credentials:
            found = self._by_key.get(credential.key_id)
            if found is not None and found[0] is record:
                del self._by_key[credential.key_id]
            self._by_user.pop((record.instance_id, credential.username), None)

    def _tell(self, old: InstanceRecord | None, new: InstanceRecord | None) -> None:
        for subscriber in self._subscribers:
            subscriber(old, new)
