"""Our own messages, byte by byte as the protocol's chapter has them."""

from __future__ import annotations

from engines.relational import reply


def test_authentication_requests() -> None:
    assert reply.AUTHENTICATION_OK == b"R\0\0\0\x08\0\0\0\0"
    assert reply.AUTHENTICATION_CLEARTEXT == b"R\0\0\0\x08\0\0\0\x03"
    assert reply.authentication_sasl(["SCRAM-SHA-256"]) == (
        b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"
    )
    assert reply.authentication_sasl_continue(b"r=x") == b"R\0\0\0\x0b\0\0\0\x0br=x"
    assert reply.authentication_sasl_final(b"v=x") == b"R\0\0\0\x0b\0\0\0\x0cv=x"


def test_the_cancel_key_is_the_token_in_two_halves() -> None:
    assert reply.backend_key_data(0x0102030405060708) == (
        b"K\0\0\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08"
    )


def test_version_negotiation_lists_the_options_not_known() -> None:
    assert reply.negotiate_protocol_version(2, ["_pq_.x"]) == (
        b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0"
    )


def test_ready_for_query_repeats_the_servers_status() -> None:
    assert reply.ready_for_query(ord("E")) == b"Z\0\0\0\x05E"
