"""The REST API against what schemathesis makes of its OpenAPI document."""
