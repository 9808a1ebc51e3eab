"""What two or more engines share; nothing here knows an engine by name.

Read in this order: `contract` (what an engine declares), `ports` (what it is given), `records` and
`exchange` (where the two planes meet), `errors` (why a request is refused), then the codecs and
algorithms: `auth`, `ordkey`, `statement`, `changelog`, `http`, `limits`, `settings`.
"""
