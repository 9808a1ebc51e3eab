"""The signed-in session: framing of both directions, admission, metering.

In order of control flow: `duplex` (the `Relay`), `kinds` (messages by their byte), `segment` (what
one ReadyForQuery answers), `names` (what prepared statements and portals mean).
"""

from engines.relational.relay.duplex import STATUS_IDLE as STATUS_IDLE
from engines.relational.relay.duplex import Relay as Relay
