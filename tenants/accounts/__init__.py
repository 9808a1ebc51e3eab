"""Organisations (tenants), their members, sign-in, and the table of what each role may do."""
