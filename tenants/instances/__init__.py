"""Engine instances: life cycle, plan, credentials, connection strings, and the first start's set.

Read `status` (the transition table), then `services` (what people ask for) and `steps` (what
operations do). Nothing here knows an engine: ask `engines.registry`.
"""
