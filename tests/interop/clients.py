"""Talks to a running `local` example: clients.py URL-WITH-TOKEN PROGRAMS NODE_MODULES: the folders of the Python programs and of the npm packages."""

import asyncio
import contextlib
import http.client as http_client
import json
import os
import socket as sockets
import subprocess
import sys
import time
from urllib.parse import urlsplit

import boto3
import websockets

url, programs, modules = sys.argv[1:]
plain = url.split("?")[0]
endpoint = plain.replace("ws://", "http://", 1)
hello = '{"action":"pushtowebsocket","message":"hello"}'
checks = 0


def check(what, found, expected):
    global checks
    if found != expected:
        sys.exit(f"{what}: {found!r} instead of {expected!r}")
    checks += 1
    print(f"ok  {what}: {found!r}")


async def refused(target):
    try:
        async with websockets.connect(target):
            return 101
    except websockets.InvalidStatus as error:
        return error.response.status_code


async def closed(send, **options):
    async with websockets.connect(url, **options) as socket:
        await send(socket)
        try:
            while True:
                await asyncio.wait_for(socket.recv(), 5)
        except websockets.ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else None


async def push_from_outside():
    manage = boto3.client(
        "apigatewaymanagementapi",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )

    async def call(operation, **arguments):
        try:
            answer = await asyncio.to_thread(getattr(manage, operation), **arguments)
            return answer["ResponseMetadata"]["HTTPStatusCode"], answer
        except manage.exceptions.ClientError as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]

    async with websockets.connect(url, user_agent_header="peer/1") as socket:
        # A message that selects no route is answered with the connection's id.
        await socket.send("{}")
        forbidden = json.loads(await socket.recv())
        check("websockets: no such route", forbidden["message"], "Forbidden")
        connection = forbidden["connectionId"]

        status, _ = await call("post_to_connection", ConnectionId=connection, Data="é from boto3".encode())
        check("boto3: post_to_connection", (status, await socket.recv()), (200, "é from boto3"))
        status, info = await call("get_connection", ConnectionId=connection)
        check("boto3: get_connection", (status, info["Identity"]["UserAgent"]), (200, "peer/1"))
        pong = await socket.ping()
        check("websockets: ping", type(await asyncio.wait_for(pong, 5)), float)
        largest = await call("post_to_connection", ConnectionId=connection, Data=b"x" * 131072)
        check("boto3: 131072 bytes", (largest[0], len(await socket.recv())), (200, 131072))
        too_large = await call("post_to_connection", ConnectionId=connection, Data=b"x" * 131073)
        check("boto3: 131073 bytes", too_large, (413, "PayloadTooLargeException"))
        status, _ = await call("delete_connection", ConnectionId=connection)
        await socket.wait_closed()
        check("boto3: delete_connection", (status, socket.close_code), (204, 1000))
        gone = (410, "GoneException")
        check("boto3: post to a closed connection", await call("post_to_connection", ConnectionId=connection, Data=b""), gone)
        check("boto3: get a closed connection", await call("get_connection", ConnectionId=connection), gone)
    malformed = await call("post_to_connection", ConnectionId="malformed", Data=b"")
    check("boto3: post to a malformed id", malformed, (400, "BadRequestException"))


def http(method, path, body=None):
    connection = http_client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.getheader("x-amzn-errortype")


def plain_http():
    unknown = "AAAAAAAAAAAAAAA"
    check("http: no upgrade", http("GET", "/dev"), (426, None))
    check("http: another path", http("GET", "/dev/more"), (403, "ForbiddenException"))
    check("http: another stage", http("POST", f"/prod/@connections/{unknown}="), (403, "ForbiddenException"))
    for at, equals in [("@", "="), ("%40", "%3D")]:
        path = f"/dev/{at}connections/{unknown}{equals}"
        check(f"http: {path}", http("POST", path, b"x"), (410, "GoneException"))
    check("http: another method", http("PUT", f"/dev/@connections/{unknown}="), (403, "ForbiddenException"))
    check("http: a megabyte", http("POST", f"/dev/@connections/{unknown}=", b"x" * 1_000_000), (413, "PayloadTooLargeException"))


async def main():
    async with websockets.connect(url) as socket:
        await socket.send(hello)
        check("websockets: push to the caller", await socket.recv(), '{"echoed":"hello"}')
        extensions = [extension.name for extension in socket.protocol.extensions]
        check("websockets: it compresses", extensions, ["permessage-deflate"])
        long = "x" * 100_000
        await socket.send(json.dumps({"action": "pushtowebsocket", "message": long}))
        check("websockets: 100 KB compressed in one frame", len(json.loads(await socket.recv())["echoed"]), len(long))
        await socket.send(json.dumps({"action": "pushtowebsocket", "messag": "typo", "id": 7}))
        refused_message = json.loads(await socket.recv())
        check("websockets: a typo", (refused_message["id"], refused_message["error"]["code"]), (7, "invalid_message"))
        check("websockets: what is missing", "`message`" in refused_message["error"]["message"], True)
    check("websockets: no token", await refused(plain), 401)
    check("websockets: bad token", await refused(plain + "?Auth=bad"), 403)
    check("websockets: URL of 4097 characters", await refused(plain + "?Auth=" + "x" * (4097 - len("/dev?Auth="))), 414)
    check("websockets: another stage", await refused(url.replace("/dev?", "/prod?")), 403)
    check("websockets: frame of 32769 bytes", await closed(lambda socket: socket.send("x" * 32769), compression=None), 1009)
    fragments = ["x" * 32768] * 5
    check("websockets: message over 128 KB", await closed(lambda socket: socket.send(fragments), compression=None), 1009)
    check("websockets: binary frame", await closed(lambda socket: socket.send(b"x")), 1003)
    await push_from_outside()
    await other_clients_of_aws()


async def connected():
    """A client, and the id of its connection."""
    socket = await websockets.connect(url, user_agent_header="peer/1")
    await socket.send("{}")
    return socket, json.loads(await socket.recv())["connectionId"]


def aws(*arguments):
    """Runs the aws command line: its exit code, and what it said."""
    ran = subprocess.run(
        [f"{programs}/aws", "apigatewaymanagementapi", *arguments, "--endpoint-url", endpoint],
        env={
            **os.environ,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    return ran.returncode, ran.stdout + ran.stderr


async def other_clients_of_aws():
    socket, connection = await connected()
    code, said = await asyncio.to_thread(aws, "post-to-connection", "--connection-id", connection, "--data", "aGVsbG8=")
    # Version 1 of the command line sends the text as it is, version 2 what it means in base64.
    check("aws: post-to-connection", (code, said), (0, ""))
    check("aws: the text", await asyncio.wait_for(socket.recv(), 10) in ("aGVsbG8=", "hello"), True)
    code, said = await asyncio.to_thread(aws, "get-connection", "--connection-id", connection)
    check("aws: get-connection", (code, '"peer/1"' in said and "127.0.0.1" in said), (0, True))
    code, said = await asyncio.to_thread(aws, "delete-connection", "--connection-id", connection)
    await socket.wait_closed()
    check("aws: delete-connection", (code, said, socket.close_code), (0, "", 1000))
    code, said = await asyncio.to_thread(aws, "get-connection", "--connection-id", connection)
    check("aws: a closed connection", (code != 0, "GoneException" in said or "410" in said), (True, True))

    socket, connection = await connected()
    script = os.path.abspath("tests/interop/push.mjs")
    node = ["node", script, endpoint, connection]
    ran = await asyncio.to_thread(subprocess.run, node, cwd=os.path.dirname(modules), capture_output=True, text=True, timeout=30)
    if ran.returncode != 0:
        sys.exit(f"push.mjs: {ran.stderr}")
    check("JavaScript: the text", await asyncio.wait_for(socket.recv(), 10), "é from JavaScript")
    expected = [[200, None], [200, "peer/1"], [204, None], [410, "GoneException"]]
    check("JavaScript: post, get, delete, post", json.loads(ran.stdout), expected)


def upgraded():
    """A raw socket on which the handshake is done."""
    parts = urlsplit(url)
    socket = sockets.create_connection((parts.hostname, parts.port), timeout=10)
    socket.sendall(
        f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += socket.recv(1)
    check("raw socket: handshake", head.split(b"\r\n")[0], b"HTTP/1.1 101 Switching Protocols")
    return socket


def frame(opcode, payload, final=True, masked=True):
    """A frame as a client writes it, or as none may."""
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    head = bytes([opcode | (0x80 if final else 0)]) + bytes([size[0] | (0x80 if masked else 0)]) + size[1:]
    return head + (b"\0\0\0\0" if masked else b"") + payload


def received(socket):
    """The opcode and the payload of the next frame; None at the end."""
    def exactly(count):
        data = b""
        while len(data) < count:
            more = socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    try:
        head = exactly(2)
        size = head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(exactly(2 if size == 126 else 8), "big")
        return head[0] & 0x0F, exactly(size)
    except (EOFError, ConnectionResetError):
        return None


def code(answer):
    return answer and answer[0] == 8 and int.from_bytes(answer[1][:2], "big")


def raw_sockets():
    socket = upgraded()
    fragments = [frame(1, hello[:9].encode(), final=False), frame(9, b"?"), frame(0, hello[9:].encode())]
    socket.sendall(b"".join(fragments))
    check("raw socket: a ping between fragments", received(socket), (10, b"?"))
    check("raw socket: a fragmented message", received(socket), (1, b'{"echoed":"hello"}'))
    # It has said all that it will, and still listens: a close frame comes, or the end.
    socket.sendall(frame(1, hello.encode()))
    check("raw socket: an answer", received(socket), (1, b'{"echoed":"hello"}'))
    socket.shutdown(sockets.SHUT_WR)
    answer = received(socket)
    check("raw socket: half closed ends", answer is None or code(answer) in (1001, 1006), True)

    for what, bad, expected in [
        ("an unmasked frame", frame(1, b"{}", masked=False), 1002),
        ("a reserved opcode", frame(3, b""), 1002),
        ("a continuation of nothing", frame(0, b"x"), 1002),
        ("a fragmented ping", frame(9, b"", final=False), 1002),
        ("invalid UTF-8", frame(1, b"\xff\xfe"), 1007),
    ]:
        socket = upgraded()
        socket.sendall(bad)
        check(f"raw socket: {what}", code(received(socket)), expected)

    # A client that never reads delays nobody else.
    deaf = upgraded()
    deaf.settimeout(2)
    # It is not read from any more either, once it takes nothing.
    with contextlib.suppress(TimeoutError):
        deaf.sendall(frame(1, json.dumps({"action": "pushtowebsocket", "message": "x" * 30_000}).encode()) * 300)
    other = upgraded()
    start = time.monotonic()
    other.sendall(frame(1, hello.encode()))
    check("raw socket: beside one that never reads", received(other), (1, b'{"echoed":"hello"}'))
    check("raw socket: and at once", time.monotonic() - start < 5, True)


def talk(*arguments):
    # Its standard input stays open: at its end wscat would leave before anything can come.
    with subprocess.Popen(
        [f"{modules}/.bin/wscat", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
        return process.stdout.read()


asyncio.run(main())
plain_http()
raw_sockets()
said = talk("--connect", url, "--execute", hello, "--wait", "1", "--no-color")
check("wscat: push to the caller", said.strip().splitlines()[-1:], ['{"echoed":"hello"}'])
for name, target, status in [("no token", plain, 401), ("bad token", plain + "?Auth=bad", 403)]:
    check(f"wscat: {name}", f"Unexpected server response: {status}" in talk("--connect", target), True)
print(f"{checks} passed, 0 failed")
