"""DynamoDB's border: HTTP headers, target, signature and checksums around a service of bodies.

`border` serves a request from its head to its answer, `signed` proves whose it is and says what is
wrong with a signature, `answers` makes answers and their checksums.
"""
