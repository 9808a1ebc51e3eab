"""The signed-in session: framing of what the client sends, admission, metering.

In order of control flow: `duplex` (the `Relay`), `tally` (the classes of the whole commands of a
chunk; `tally_plain` does the same where nothing is compiled), `marks` (errors of Redis that stand
for something of ours).
"""

from engines.inmemory.relay.duplex import Relay as Relay
