"""What an instance's own roles changed about themselves and must not keep, put right by the host.

PostgreSQL lets every role set its own defaults, and an owner bound its database's connections. The
roles of an instance are shared by its credentials, so a single reader could lock all readers out,
for good: `ALTER ROLE current_user SET local_preload_libraries = 'nothing'`. The host cannot forbid
that, but it repeats these statements with every start and every new record; revoking a key is one.
"""

from __future__ import annotations

from dataplane.host.template import DATABASE

OWNER_ROLE = "owner"
# Nobody may speak for all who share them; an owner's settings are its own.
SHARED_ROLES = ("readwrite", "readonly")
LOCK_MILLISECONDS_MAX = 1000

STATEMENTS = (
    # A tenant's open transaction must not hold up the host.
    f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS_MAX}",
    f"ALTER DATABASE {DATABASE} CONNECTION LIMIT -1",
    f"ALTER DATABASE {DATABASE} RESET local_preload_libraries",
    f"ALTER ROLE {OWNER_ROLE} RESET local_preload_libraries",
    f"ALTER ROLE {OWNER_ROLE} IN DATABASE {DATABASE} RESET local_preload_libraries",
    # A password opens nothing here, but readers see its hash in pg_authid, and it may be in use
    # elsewhere.
    *(f"ALTER ROLE {role} PASSWORD NULL" for role in (OWNER_ROLE, *SHARED_ROLES)),
    *(f"ALTER ROLE {role} RESET ALL" for role in SHARED_ROLES),
    *(f"ALTER ROLE {role} IN DATABASE {DATABASE} RESET ALL" for role in SHARED_ROLES),
    # RAISE LOG and debug_print_parse write to the instance's log, which no quota bounds. Only a
    # superuser may set this or take it back.
    *(
        f"ALTER ROLE {role} SET log_min_messages = fatal"
        for role in (OWNER_ROLE, *SHARED_ROLES)
    ),
)  # fmt: skip
# One text is one transaction: all or nothing, and one flush.
RESTORE_ACCESS = ";\n".join(STATEMENTS)
