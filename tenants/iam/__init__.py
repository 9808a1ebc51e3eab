"""API keys of the REST API, and how a request proves who it is.

Service ids, policies in IBM's vocabulary, token exchange and JWKS will live here too.
"""
