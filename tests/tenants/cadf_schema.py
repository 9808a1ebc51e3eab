"""What every event must look like, as a JSON Schema: CADF with the fields of Activity Tracker."""

from __future__ import annotations

from typing import Any

from jsonschema import Draft202012Validator

TEXT = {"type": "string", "minLength": 1}
CRN = {
    "type": "string",
    "pattern": r"^crn:v1:weftkit:public:weftkit:[^:]+:(a/[0-9a-f-]{36})?(:[^:]*){3}$",
}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": [
        "id",
        "action",
        "outcome",
        "eventTime",
        "severity",
        "message",
        "initiator",
        "target",
        "observer",
        "reason",
        "requestData",
        "responseData",
        "correlationId",
        "dataEvent",
        "logSourceCRN",
        "saveServiceCopy",
    ],
    "properties": {
        "id": {"type": "string", "pattern": r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
        "action": {"type": "string", "pattern": r"^weftkit(\.[a-z0-9-]+){2,3}$"},
        "outcome": {"enum": ["success", "pending", "failure"]},
        "eventTime": {
            "type": "string",
            "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{2}\+0000$",
        },
        "severity": {"enum": ["normal", "warning", "critical"]},
        "message": {"type": "string", "pattern": r"^weftkit: [a-z].*$", "maxLength": 500},
        "initiator": {
            "type": "object",
            "additionalProperties": False,
            "required": ["id", "name", "typeURI", "credential", "host"],
            "properties": {
                "id": TEXT,
                "name": TEXT,
                "typeURI": {
                    "enum": [
                        "service/security/account/user",
                        "service/security/account/serviceid",
                        "service/security/client/certificateid",
                        "service/security/clientid",
                    ]
                },
                "credential": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["type"],
                    "properties": {
                        "type": {
                            "enum": [
                                "token",
                                "user",
                                "apikey",
                                "certificate",
                                "public-access",
                                "hmac",
                                "compute-resource",
                                "instance-identity-token",
                                "apikey-serviceid",
                                "s2s-authorization",
                            ]
                        }
                    },
                },
                "host": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["address", "addressType", "agent"],
                    "properties": {
                        "address": {"type": "string"},
                        "addressType": {"enum": ["IPv4", "IPv6"]},
                        "agent": {"type": "string", "maxLength": 200},
                    },
                },
            },
        },
        "target": {
            "type": "object",
            "additionalProperties": False,
            "required": ["id", "name", "typeURI"],
            "properties": {
                "id": CRN,
                "name": TEXT,
                "typeURI": {"type": "string", "pattern": r"^weftkit(/[a-z0-9-]+){1,2}$"},
            },
        },
        "observer": {"const": {"name": "ActivityTracker"}},
        "reason": {
            "type": "object",
            "additionalProperties": False,
            "required": ["reasonCode", "reasonType"],
            "properties": {
                "reasonCode": {"type": "integer", "minimum": 100, "maximum": 999},
                "reasonType": TEXT,
                "reasonForFailure": TEXT,
            },
        },
        "requestData": {"type": "object"},
        "responseData": {"type": "object"},
        "correlationId": {"type": "string"},
        "dataEvent": {"type": "boolean"},
        "logSourceCRN": {"allOf": [CRN, {"pattern": "::$"}]},
        "saveServiceCopy": {"type": "boolean"},
    },
    # The reason is told, and the outcome is in the message, only where it is a failure.
    "if": {"properties": {"outcome": {"const": "failure"}}},
    "then": {
        "properties": {
            "message": {"pattern": r" \[failure\]$"},
            "reason": {"required": ["reasonForFailure"]},
        }
    },
    "else": {
        "properties": {
            "message": {"not": {"pattern": r"\[failure\]$"}},
            "reason": {"not": {"required": ["reasonForFailure"]}},
        }
    },
}
VALIDATOR = Draft202012Validator(SCHEMA)


def faults(body: Any) -> list[str]:
    """Return what is wrong with an event."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(body)]
