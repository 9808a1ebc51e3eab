"""Prices, rating, invoices, quotas and budgets; plans and what was used are data of `usage`.

`rating` is pure arithmetic on integers of micro-units; `measuring` says what was used in a period;
`drafting` makes lines of both, `invoices` gives them their life; `quotas` and `arrears` decide who
may grow; `budgets` and `notices` tell people before it hurts.
"""
