"""PartiQL, the part of it that DynamoDB documents: text and parameters -> a checked statement.

In order of control flow: `tokens`, `reading` (statements), `conditions` (WHERE), `assignments`
(SET and REMOVE), `terms` (paths, literals and parameters, which all of them are made of), `trees`.
"""

from engines.keyvalue.parse.partiql.reading import read
from engines.keyvalue.parse.partiql.trees import Delete, Exists, Insert, Select, Statement, Update

__all__ = ["Delete", "Exists", "Insert", "Select", "Statement", "Update", "read"]
