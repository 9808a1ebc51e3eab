"""DynamoDB's expression languages: texts -> checked trees.

In order of control flow: `reading` (a request's expressions), `tokens`, `condition_syntax` and
`update_syntax` (texts -> syntax), `conditions` and `updates` (syntax -> trees and checks),
`checks`, `bounds` and `reserved` (what is refused, in DynamoDB's words), `key_conditions`, `trees`.
"""

from engines.keyvalue.parse.expressions.reading import read
from engines.keyvalue.parse.expressions.trees import Expressions

__all__ = ["Expressions", "read"]
