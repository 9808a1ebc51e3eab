"""`weft`: the daily verbs of the REST admin API on a command line. No Django, only click and httpx.

session.py      where the API is, and with which key and tenant; the profile file
api.py          requests, problems as errors with an exit status each, pages, waiting
shown.py        tables and JSON
instances.py, credentials.py, operations.py, backups.py, account.py    the verbs
programs.py     psql and redis-cli with a credential for the time that they run
"""
