"""Talks to a running `local` example: peers.py URL-WITH-TOKEN WSCAT."""

import asyncio
import http.client as http_client
import json
import subprocess
import sys
from urllib.parse import urlsplit

import boto3
import websockets

url, wscat = sys.argv[1:]
plain = url.split("?")[0]
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
        endpoint_url=plain.replace("ws://", "http://", 1),
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
    check("websockets: no token", await refused(plain), 401)
    check("websockets: bad token", await refused(plain + "?Auth=bad"), 403)
    check("websockets: URL of 4097 characters", await refused(plain + "?Auth=" + "x" * (4097 - len("/dev?Auth="))), 414)
    check("websockets: another stage", await refused(url.replace("/dev?", "/prod?")), 403)
    check("websockets: frame of 32769 bytes", await closed(lambda socket: socket.send("x" * 32769)), 1009)
    fragments = ["x" * 32768] * 5
    check("websockets: message over 128 KB", await closed(lambda socket: socket.send(fragments)), 1009)
    check("websockets: binary frame", await closed(lambda socket: socket.send(b"x")), 1003)
    await push_from_outside()


def talk(*arguments):
    # Its standard input stays open: at its end wscat would leave before anything can come.
    with subprocess.Popen(
        [wscat, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
        return process.stdout.read()


asyncio.run(main())
plain_http()
said = talk("--connect", url, "--execute", hello, "--wait", "1", "--no-color")
check("wscat: push to the caller", said.strip().splitlines()[-1:], ['{"echoed":"hello"}'])
for name, target, status in [("no token", plain, 401), ("bad token", plain + "?Auth=bad", 403)]:
    check(f"wscat: {name}", f"Unexpected server response: {status}" in talk("--connect", target), True)
print(f"{checks} passed, 0 failed")
