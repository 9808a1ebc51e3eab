"""DynamoDB: its JSON API over HTTP, translated to PostgreSQL.

In order of control flow: `engine` (the declaration), `http` (the border: headers, signatures,
JSON), `session` (operations, the only coroutines), `parse` (bodies and expressions -> trees),
`plan` (tables, keys, ranges), `sql` (plan -> statements), `evaluate` (conditions and updates over
items), `reply` (rows -> answers), `capacity` (sizes and units), `storage` (the DDL), `values` (what
an item is), `errors` (what DynamoDB says).
"""
