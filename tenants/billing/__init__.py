"""Prices, rating, invoices and budgets will live here; plans and limits are data of `usage`.

Money is integers in micro-units; what is rated are the hours of `usage.UsageHour`.
"""
