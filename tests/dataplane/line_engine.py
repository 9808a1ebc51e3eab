"""An engine for tests: lines of text, signed in with one line, relayed to a unix socket.

    LOGIN <user> <password> [<instance> [<database>]]   -> OK <token> | ERR <reason>
    SECRET <password>                                   -> the same, without a user name
    REDEEM <token>                                      -> PAYLOAD <hex> | NONE

Afterwards each line is one request; its first letter says the class: (r)ead, (w)rite, (q)uery,
(g)rowing write, anything else unlimited. A leading "TLS\\n" asks for TLS, as SSLRequest does.
"""

from __future__ import annotations

from engines.kit.contract import Endpoint, EngineSpec, Placement, Preamble, Transport
from engines.kit.errors import NativeError, Reason, RequestError
from engines.kit.ports import (
    Candidate,
    ClientChannel,
    Gate,
    Grant,
    Hints,
    RequestClass,
    SessionPorts,
    Wait,
)

LINE_BYTES_MAX = 4096
CLASSES = {
    b"r": RequestClass.READ,
    b"w": RequestClass.WRITE,
    b"g": RequestClass.WRITE,
    b"q": RequestClass.QUERY,
}


def preamble(data: bytes, is_tls_offered: bool) -> Preamble:
    if data[0] == 0x16 and is_tls_offered:
        return Preamble(tls=True)
    if data[:1] != b"T":
        return Preamble()
    if len(data) < 4:
        return Preamble(needs=4)
    if data[:4] != b"TLS\n":
        return Preamble()
    if is_tls_offered:
        return Preamble(consume=4, reply=b"OK\n", tls=True)
    return Preamble(consume=4, reply=b"NO\n", again=True)


async def read_line(client: ClientChannel) -> list[str]:
    line = b""
    while not line.endswith(b"\n"):
        line += await client.read_exactly(1)
        if len(line) > LINE_BYTES_MAX:
            raise RequestError(Reason.LIMIT, "the line is too long")
    return line.decode().split()


async def open_session(client: ClientChannel, ports: SessionPorts) -> LineRelay | None:
    try:
        words = await read_line(client)
        if words[0] == "REDEEM":
            found = await ports.token_redeem(int(words[1]), client)
            client.write(b"PAYLOAD " + found[1].hex().encode() if found else b"NONE")
            client.write(b"\n")
            return None
        grant = sign_in(words, client, ports)
        server = await ports.connect(grant.record)
    except RequestError as error:
        client.write(f"ERR {error.reason.value} {error.message}\n".encode())
        return None
    token = ports.token_issue(grant, grant.credential.username.encode(), upper=len(words))
    server.write(b"")
    client.write(f"OK {token} {grant.record.handle} {grant.credential.role.value}\n".encode())
    return LineRelay(grant.gate)


def sign_in(words: list[str], client: ClientChannel, ports: SessionPorts) -> Grant:
    server_name = client.tls.server_name if client.tls else ""
    if words[0] == "SECRET":
        password = words[1]
        hints = Hints(server_name=server_name)
        candidate = ports.directory.find_by_secret("line", hints, password)
    else:
        _, username, password, instance, database = [*words, "", ""][:5]
        instance = "" if instance == "-" else instance
        candidate = ports.directory.find("line", Hints(username, server_name, instance, database))
    if not is_proven(candidate, password, client, ports):
        ports.login_failed(candidate, client, "wrong password")
        raise RequestError(Reason.UNAUTHENTICATED, "sign-in failed")
    return ports.admit_login(candidate, client)


def is_proven(
    candidate: Candidate, password: str, client: ClientChannel, ports: SessionPorts
) -> bool:
    if candidate.record is not None and candidate.record.auth_method == "mtls":
        name = client.tls.common_name if client.tls else ""
        return name == candidate.credential.username and not candidate.is_mock
    return ports.directory.verify_password(candidate, password)


class LineRelay:
    """One line, one request."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._line = b""
        self._unanswered = 0
        self.is_idle = True
        self.has_left = self.is_clean = False
        self.to_server: list[bytes] = []
        self.to_client: list[bytes] = []
        self.waiting: tuple[RequestClass, int] | None = None

    def from_client(self, data: bytes) -> bool:
        self._line += data
        while b"\n" in self._line:
            line, rest = self._line.split(b"\n", 1)
            request_class = CLASSES.get(line[:1], RequestClass.UNLIMITED)
            answer = self._gate.admit(request_class, grows=line[:1] == b"g")
            if isinstance(answer, Wait):
                self.waiting = (request_class, 1)
                return False
            self._line = rest
            if isinstance(answer, RequestError):
                retry = f"{answer.retry_after_s:.4f}" if answer.retry_after_s else "-"
                self.to_client.append(f"ERR {answer.reason.value} {retry}\n".encode())
            else:
                self._unanswered += 1
                self.is_idle = False
                self.to_server.append(line + b"\n")
        if len(self._line) > LINE_BYTES_MAX:
            raise RequestError(Reason.LIMIT, "the line is too long")
        return False

    def from_server(self, data: bytes) -> bool:
        self._unanswered -= data.count(b"\n")
        self.is_idle = self._unanswered == 0
        return True

    def goodbye(self, error: RequestError) -> bytes:
        return f"BYE {error.reason.value}\n".encode()

    def closed(self) -> None:
        pass


def uri(endpoint: Endpoint) -> str:
    return f"line://{endpoint.username}@{endpoint.host}:{endpoint.port}"


ENGINE = EngineSpec(
    name="line",
    title="Lines",
    product="WeftKitLine",
    port=7000,
    transport=Transport.TCP,
    placement=Placement.REDIS_SERVER,
    native={reason: NativeError(reason.value) for reason in Reason},
    uri=uri,
    one_liner=uri,
    preamble=preamble,
    open_session=open_session,
)
