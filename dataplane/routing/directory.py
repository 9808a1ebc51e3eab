"""From what a client said to whom it claims to be: `ports.Directory` over the record table.

Who names the instance, and all who do must agree (design.md section 4):

    TLS SNI         its first label, if that is a handle; any other name is nobody's
    instance        the protocol's own field; must be a handle
    user name       `wk_<key id>` names the instance of that key
    database        a handle, only where none of the above named one
    nothing         the default instance of the engine

Whatever does not resolve becomes a mock credential that is made in every case, known or not, so
that both take the same work.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from functools import lru_cache

from dataplane.routing.table import RecordTable
from engines.kit import auth
from engines.kit.auth.sigv4 import access_secret
from engines.kit.errors import RequestError
from engines.kit.ports import Candidate, Clock, Hints
from engines.kit.records import Credential, InstanceRecord, Role

MOCKS_CACHED = 4096
CACHED_NAME_CHARACTERS_MAX = 128
ACCESS_KEYS_CACHED = 4096
# Whose instances weftkit.toml declares users of.
CONFIGURED_TENANT = "default"
_MOCK_PURPOSE = b"weftkit dataplane mock credentials"
# Each role includes the ones before it.
_ROLE_ORDER = {Role.READ: 0, Role.WRITE: 1, Role.ADMIN: 2}


class RecordDirectory:
    """Finds instances and checks secrets."""

    def __init__(
        self,
        table: RecordTable,
        clock: Clock,
        *,
        peppers: Mapping[int, bytes],
        master_key: bytes,
        jwt_secret: str = "",
        configured: Mapping[str, str] | None = None,
    ) -> None:
        self._table = table
        self._clock = clock
        self._peppers = peppers
        self._master_key = master_key
        self._mock_key = hmac.digest(master_key, _MOCK_PURPOSE, "sha256")
        self._newest_pepper = max(peppers)
        # A name's second sign-in is cheaper than its first, known or not.
        self._mock_cached = lru_cache(maxsize=MOCKS_CACHED)(self._make_mock)
        self._jwt_secret = jwt_secret.encode()
        # weftkit.toml's users of the tenant `default`: they sign with their passwords.
        self._configured = dict(configured or {})
        # Signed requests come many a second from few keys; a change of any record empties it.
        self._by_access_key: dict[tuple[str, str, str], Candidate] = {}
        # Secrets that do not end, by key id, with the record that they are of.
        self._lasting_secrets: dict[str, tuple[InstanceRecord, tuple[str, ...]]] = {}
        self._access_secret = lru_cache(maxsize=ACCESS_KEYS_CACHED)(access_secret)
        table.subscribe(self._forget_access_keys)

    def find(self, engine: str, hints: Hints) -> Candidate:
        """Return the candidate; all present hints must agree, else it is a mock."""
        # Made also when it is not needed: the same work for known and unknown names.
        mock = self._mock(hints.username)
        record = self._instance(engine, hints)
        credential = self._credential(record, hints.username)
        if record is None or credential is None:
            return Candidate(record, mock, is_mock=True)
        return Candidate(record, credential, is_mock=False)

    def find_by_secret(self, engine: str, hints: Hints, password: str) -> Candidate:
        """Return the candidate for a client that sent a password and no user name."""
        key_id = auth.parse_password(password)
        if key_id is not None:
            username = auth.username_of(key_id)
        else:
            username = self._user_of_secret(self._instance(engine, hints), password)
        return self.find(engine, Hints(username, hints.server_name, hints.instance, hints.database))

    def verify_password(self, candidate: Candidate, password: str) -> bool:
        """Say whether `password` proves the candidate (password or jwt); never for a mock."""
        method = candidate.record.auth_method if candidate.record else "password"
        if method == "jwt":
            return self._verify_jwt(candidate, password) and not candidate.is_mock
        secret = auth.verify_password(
            candidate.credential, password, self._peppers, self._clock.now()
        )
        return secret is not None and method == "password" and not candidate.is_mock

    def find_access_key(self, engine: str, access_key_id: str, server_name: str) -> Candidate:
        """Return the candidate for a signed request: an access key id is a user name."""
        key = (engine, access_key_id, server_name)
        candidate = self._by_access_key.get(key)
        if candidate is None:
            candidate = self.find(engine, Hints(access_key_id, server_name))
            if len(self._by_access_key) >= ACCESS_KEYS_CACHED:
                self._by_access_key.clear()
            if len(access_key_id) + len(server_name) <= 2 * CACHED_NAME_CHARACTERS_MAX:
                self._by_access_key[key] = candidate
        return candidate

    def access_secrets(self, candidate: Candidate) -> tuple[str, ...]:
        """Return the live secrets that a candidate may have signed with; see `ports.Directory`."""
        credential, record = candidate.credential, candidate.record
        lasting = self._lasting_secrets.get(credential.key_id)
        if lasting is not None and lasting[0] is record:
            return lasting[1]
        if candidate.is_mock or record is None or record.auth_method != "password":
            # Version 0 is nobody's.
            return (self._access_secret(self._mock_key, credential.username, 0),)
        password = self._configured.get(credential.username)
        if password is not None and record.tenant == CONFIGURED_TENANT:
            is_current = self.verify_password(candidate, password)
            return (password,) if is_current else ()
        found = tuple(
            [
                self._access_secret(self._master_key, credential.username, secret.access_version)
                for secret in auth.live_secrets(credential, self._clock.now())
                if secret.access_version
            ]
        )
        if all(secret.expires_at is None for secret in credential.secrets):
            self._lasting_secrets[credential.key_id] = (record, found)
        return found

    def _forget_access_keys(self, old: InstanceRecord | None, new: InstanceRecord | None) -> None:
        if old is not new:
            self._by_access_key.clear()
            self._lasting_secrets.clear()

    def _mock(self, username: str) -> Credential:
        is_short = len(username) <= CACHED_NAME_CHARACTERS_MAX
        return (self._mock_cached if is_short else self._make_mock)(username)

    def _make_mock(self, username: str) -> Credential:
        return auth.mock_credential(username, self._mock_key, self._newest_pepper)

    def _instance(self, engine: str, hints: Hints) -> InstanceRecord | None:
        """Return the one instance that every present hint names."""
        named: list[InstanceRecord | None] = []
        by_name = self._table.by_handle(hints.server_name.split(".", 1)[0].lower())
        if by_name is not None:
            named.append(by_name)
        if hints.instance:
            named.append(self._table.by_handle(hints.instance))
        key_id = auth.parse_username(hints.username)
        if key_id is not None:
            found = self._table.by_key(key_id)
            named.append(found[0] if found else None)
        if not named and hints.database:
            by_database = self._table.by_handle(hints.database)
            if by_database is not None and by_database.engine == engine:
                named.append(by_database)
        if not named:
            named.append(self._table.default(engine))
        first = named[0]
        if first is None or first.engine != engine:
            return None
        return first if all(record is first for record in named) else None

    def _credential(self, record: InstanceRecord | None, username: str) -> Credential | None:
        if record is None:
            return None
        credential = self._table.by_user(record.instance_id, username)
        if credential is None:
            # A name given in weftkit.toml beside a key id that carries another form of it.
            key_id = auth.parse_username(username)
            found = self._table.by_key(key_id) if key_id else None
            credential = found[1] if found else None
        return credential if credential is not None and credential.enabled else None

    def _user_of_secret(self, record: InstanceRecord | None, password: str) -> str:
        """Return whose plain password this is in the instance; "" if nobody's."""
        digests = {
            pepper_id: auth.digest(pepper, password) for pepper_id, pepper in self._peppers.items()
        }
        owner = ""
        for credential in record.credentials if record else ():
            for secret in credential.secrets:
                if hmac.compare_digest(secret.digest, digests.get(secret.pepper_id, "")):
                    owner = credential.username
        return owner

    def _verify_jwt(self, candidate: Candidate, token: str) -> bool:
        try:
            claims = auth.verify_jwt(token, self._jwt_secret, self._clock.now())
        except RequestError:
            return False
        if claims.subject != candidate.credential.username:  # both are no secrets
            return False
        if claims.roles is None:
            return True
        # A token may be narrower than its credential; it then proves less than what is asked for.
        held = [_ROLE_ORDER[Role(role)] for role in claims.roles if role in set(Role)]
        return max(held, default=-1) >= _ROLE_ORDER[candidate.credential.role]
