"""All settings of the control plane, and its only readers of the environment.

`environment.py` reads and translates; `base.py` is what every place shares; `local.py` is the
embedded default, `production.py` an operator's installation, `test.py` the tests.
"""
