"""What a checked request means for one table: its keys, ranges and rows.

catalogue   tables and secondary indexes as they are now
keys        attribute values of keys <-> the bytes they are stored under
ranges      key conditions and start keys -> ranges of those bytes
"""
