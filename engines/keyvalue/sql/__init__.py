"""Statements over the tables of an instance; values are only ever parameters.

items   one item or many, by their keys: the texts of a table, made once for each shape
pages   what Query and Scan read, a page at a time
"""
