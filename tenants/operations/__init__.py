"""Long changes: an Operation with steps, and the machinery that carries it through any crash.

Read in this order: `models`, `job` (what a step is), `kinds` (which steps each kind has),
`services` (start, cancel, retry, reset, reap), `runner` (claim, advance step by step, wait, park),
`tasks`.
"""
