"""Transaction pooling: many clients take turns on few sessions of the instance's server.

In order of control flow: `multiplexer` (one client, under its relay), `server` (what one of the
server's sessions holds), `expected` (what the server still has to answer), `statements` (prepared
statements by content), `settings` (a client's settings, carried from session to session), `effects`
(what a text leaves behind in the session that runs it), `mode` (who wants this at all).
"""

from engines.relational.pooling.multiplexer import Multiplexer as Multiplexer
from engines.relational.pooling.server import server_of as server_of
from engines.relational.pooling.settings import split_parameters as split_parameters
