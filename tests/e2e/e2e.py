"""Deploys and uses the examples on a running ministack: e2e.py ENDPOINT BINARIES LOG."""

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile

import boto3
import jwt
import websockets
from botocore.exceptions import ClientError

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from cfnlint.decode import cfn_yaml

endpoint, binaries, log = sys.argv[1:]
JWT_KEY = "a key for tests, which has 32 bytes at least"
REPLY_KEY = "another key for tests, with 32 bytes too"
STAGE = "dev"
UNKNOWN = ("AWS::ApiGatewayV2::Deployment", "AWS::ApiGatewayV2::RouteResponse")
checks = 0


def check(what, found, expected):
    global checks
    if found != expected:
        sys.exit(f"{what}: {found!r} instead of {expected!r}")
    checks += 1
    print(f"ok  {what}: {found!r}", flush=True)


def compare(rule, what, found, expected):
    """Notes where the emulator is another than API Gateway, as docs/conformance.md has it."""
    same = found == expected
    print(f"{'ok' if same else '--'}  {rule}, {what}: {found!r}{'' if same else f', where API Gateway has {expected!r}'}", flush=True)


def client(service, **options):
    settings = {"endpoint_url": endpoint, **options}
    return boto3.client(
        service, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test", **settings
    )


def upload(functions):
    s3 = client("s3")
    s3.create_bucket(Bucket="code")
    for name in functions:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as package:
            bootstrap = zipfile.ZipInfo("bootstrap")
            bootstrap.external_attr = 0o755 << 16
            # The binary itself is large, and on this machine.
            package.writestr(bootstrap, f'#!/bin/sh\nexec "{binaries}/{name}"\n')
        s3.put_object(Bucket="code", Key=f"{name}.zip", Body=archive.getvalue())


def deploy(stack, template, **parameters):
    template = json.loads(json.dumps(cfn_yaml.load(f"examples/deploy/{template}"), default=str))
    resources = template["Resources"]
    for name in [name for name, resource in resources.items() if resource["Type"] in UNKNOWN]:
        print(f"--  the resource {name} is left out: ministack does not know {resources.pop(name)['Type']}")
        for other in resources.values():
            if other.get("DependsOn") == name:
                del other["DependsOn"]
    cloudformation = client("cloudformation")
    cloudformation.create_stack(
        StackName=stack,
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    for _ in range(120):
        [state] = cloudformation.describe_stacks(StackName=stack)["Stacks"]
        if not state["StackStatus"].endswith("IN_PROGRESS"):
            break
        time.sleep(0.5)
    if state["StackStatus"] != "CREATE_COMPLETE":
        for event in cloudformation.describe_stack_events(StackName=stack)["StackEvents"]:
            print(event["ResourceStatus"], event["LogicalResourceId"], event.get("ResourceStatusReason", ""))
    check(f"{stack}: deployed", state["StackStatus"], "CREATE_COMPLETE")
    return {output["OutputKey"]: output["OutputValue"] for output in state.get("Outputs", [])}


def set_environment(function, **variables):
    lambdas = client("lambda")
    before = lambdas.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
    lambdas.update_function_configuration(FunctionName=function, Environment={"Variables": {**before, **variables}})


async def status(url):
    try:
        async with websockets.connect(url):
            return 101
    except websockets.InvalidStatus as error:
        return error.response.status_code


async def receive(socket):
    return json.loads(await asyncio.wait_for(socket.recv(), 30))


async def until(what, holds):
    for _ in range(100):
        if await asyncio.to_thread(holds):
            return
        await asyncio.sleep(0.2)
    sys.exit(f"it did not come about that {what}")


def logged():
    """What all functions have logged."""
    with open(log, encoding="utf-8", errors="replace") as lines:
        texts = [lines.read()]
    logs = client("logs")
    for group in logs.describe_log_groups().get("logGroups", []):
        events = logs.filter_log_events(logGroupName=group["logGroupName"]).get("events", [])
        texts += [event["message"] for event in events]
    return "\n".join(texts)


def connected():
    """The connections that `$connect` has logged, with the organisation that the authorizer found in the token."""
    return re.findall(r"connection_id=(\S+) route_key=\$connect\}.*org=7", logged())


async def closed(url, frame):
    """The code with which a connection ends after this frame, if it does."""
    async with websockets.connect(url) as socket:
        try:
            await socket.send(frame)
            await asyncio.wait_for(socket.recv(), 3)
        except websockets.ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else 1006
        except TimeoutError:
            return None


async def differences(url):
    plain_url = url.split("?")[0].replace("ws://", "http://")
    try:
        answer = (await asyncio.to_thread(urllib.request.urlopen, plain_url, timeout=5)).status
    except urllib.error.HTTPError as error:
        answer = error.code
    compare("CON-8", "a request that is no upgrade", answer, 426)
    compare("LIM-1", "a frame of 32769 bytes", await closed(url, "x" * 32769), 1009)
    compare("LIM-2", "a binary frame", await closed(url, b"x"), 1003)
    compare("CON-9", "a URL of 4097 characters", await status(url + "&x=" + "y" * 4097), 414)
    async with websockets.connect(url) as socket:
        await socket.send('{"action":"none"}')
        try:
            answer = json.loads(await asyncio.wait_for(socket.recv(), 3))["message"]
        except TimeoutError:
            answer = None
        compare("RTE-4", "a message that selects no route", answer, "Forbidden")


async def use_the_api(url, manage):
    token = jwt.encode({"sub": "alice", "org": 7, "exp": int(time.time()) + 3600}, JWT_KEY, algorithm="HS256")
    check("no token", await status(url), 401)
    check("a bad token", await status(f"{url}?Auth=bad"), 403)
    async with websockets.connect(f"{url}?Auth={token}") as one, websockets.connect(f"{url}?Auth={token}") as other:
        check("a good token", one.response.status_code, 101)
        await until("the authorizer's context reaches $connect", lambda: len(connected()) == 2)
        check("the authorizer's context reaches $connect", len(connected()), 2)
        for socket, text in [(one, "hello"), (other, "from another client"), (one, "again")]:
            await socket.send(json.dumps({"action": "pushtowebsocket", "message": text}))
            check("pushed back to its sender", await receive(socket), {"echoed": text})
        for connection in connected():
            await asyncio.to_thread(manage.post_to_connection, ConnectionId=connection, Data=b'{"from":"outside"}')
        for socket in (one, other):
            check("boto3: pushed from outside", await receive(socket), {"from": "outside"})
        left = connected()
        info = await asyncio.to_thread(manage.get_connection, ConnectionId=left[0])
        check("boto3: asked from outside", info["ResponseMetadata"]["HTTPStatusCode"], 200)
        members = sorted(member for member in info if member != "ResponseMetadata")
        compare("MGT-2", "what is known of a connection", members, ["ConnectedAt", "Identity", "LastActiveAt"])
    await differences(f"{url}?Auth={token}")
    return token, left


def gone(manage, connection):
    try:
        manage.post_to_connection(ConnectionId=connection, Data=b"late")
        return 200
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"]


async def use_the_queue(url, token):
    async with websockets.connect(f"{url}?Auth={token}") as one, websockets.connect(f"{url}?Auth={token}") as other:
        questions = [(one, [1, 2, 3]), (other, [40, 2])]
        for socket, numbers in questions:
            await socket.send(json.dumps({"action": "sum", "numbers": numbers}))
        for socket, numbers in questions:
            # A worker that is quick may overtake the frame that says that the request was accepted.
            frames = sorted([await receive(socket) for _ in range(3)], key=len)
            question = frames[0]["id"]
            progress = {"progress": {"added": len(numbers), "of": len(numbers)}}
            found = sorted((frame | {"id": "it"} for frame in frames), key=json.dumps)
            parts = [{"accepted": True}, progress, {"result": sum(numbers)}]
            check("accepted, progress, result", found, sorted(({"id": "it"} | part for part in parts), key=json.dumps))
            check("of the same question", {frame["id"] for frame in frames}, {question})


def definition(table):
    """What makes a table what it is, however it was made."""
    dynamodb = client("dynamodb")
    made = dynamodb.describe_table(TableName=table)["Table"]
    indexes = {}
    for index in made["GlobalSecondaryIndexes"]:
        shown = sorted(index["Projection"]["NonKeyAttributes"])
        indexes[index["IndexName"]] = (index["KeySchema"], index["Projection"]["ProjectionType"], shown)
    attributes = sorted((it["AttributeName"], it["AttributeType"]) for it in made["AttributeDefinitions"])
    return made["KeySchema"], attributes, indexes


def expiry_of(table):
    return client("dynamodb").describe_time_to_live(TableName=table)["TimeToLiveDescription"].get("AttributeName")


def made_by_the_crate(table):
    """Lets the chat example create its table, as it does in local development."""
    environment = {
        **os.environ, "PORT": "0", "CHAT_TABLE": table, "AWS_ENDPOINT_URL_DYNAMODB": endpoint, "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
    }
    with subprocess.Popen([f"{binaries}/chat"], env=environment, stdout=subprocess.PIPE, text=True) as chat:
        ready = chat.stdout.readline()
        chat.terminate()
    assert ready.startswith("Open http"), ready
    return definition(table)


def open_connections(table):
    """The items of connections that are registered, without tombstones."""
    items = client("dynamodb").scan(TableName=table)["Items"]
    return [item for item in items if item["sk"]["S"] == "@" and "isClosed" not in item]


def id_of(item):
    return item["pk"]["S"].split("#", 2)[2]


async def use_the_chat(url, table):
    versions = []

    async def presence(socket):
        """The room and the events of the next message, which tells of presence."""
        message = await receive(socket)
        check("chat: a presence message", (message["event"], sorted(message)), ("presence", ["event", "events", "room"]))
        versions.extend(event["version"] for event in message["events"])
        return message["room"], [(event["event"], event["who"]) for event in message["events"]]

    def token(name):
        return jwt.encode({"sub": name, "org": 1, "exp": int(time.time()) + 3600}, JWT_KEY, algorithm="HS256")

    async def send(socket, **message):
        await socket.send(json.dumps(message))

    async with websockets.connect(f"{url}?Auth={token('alice')}") as alice:
        await send(alice, action="join", room="lobby")
        check("chat: who is there", await receive(alice), {"event": "who", "room": "lobby", "who": ["alice"], "more": False})
        async with websockets.connect(f"{url}?Auth={token('bob')}") as bob:
            await send(bob, action="join", room="lobby")
            check("chat: who joined", await presence(alice), ("lobby", [("joined", "bob")]))
            check("chat: who is there", (await receive(bob))["who"], ["alice", "bob"])
            await send(bob, action="say", room="lobby", text="hello")
            said = {"event": "said", "room": "lobby", "who": "bob", "text": "hello"}
            check("chat: what is said", [await receive(alice), await receive(bob)], [said, said])
            await send(bob, action="say", room="kitchen", text="hello")
            check("chat: who is not in a room", (await receive(bob))["error"]["code"], "forbidden")
            await send(bob, action="say", room="lobby", id=7)
            refused = await receive(bob)
            check("chat: what is no message", (refused["id"], refused["error"]["code"]), (7, "invalid_message"))
            await send(bob, action="leave", room="lobby")
            check("chat: who left", await presence(alice), ("lobby", [("left", "bob")]))
            await send(bob, action="join", room="lobby")
            check("chat: who joined again", await presence(alice), ("lobby", [("joined", "bob")]))
        check("chat: who disconnected", await presence(alice), ("lobby", [("left", "bob")]))
        check("chat: versions order the presence of bob", versions, sorted(set(versions)))

        # A connection whose $disconnect was lost. Alice's is made as old, so that the sweep asks about it, too: the 410 of the
        # other is believed because a connection of the same API is reached through the same endpoint.
        dynamodb = client("dynamodb")
        [one] = open_connections(table)
        one["connectedAt"] = {"N": str(int(time.time() - 600) * 1000)}
        stale = json.loads(json.dumps(one).replace(id_of(one), "Z" + id_of(one)[1:]))
        del stale["groups"]
        for item in (one, stale):
            dynamodb.put_item(TableName=table, Item=item)
        check("chat: a stale connection", len(open_connections(table)), 2)
        swept = client("lambda").invoke(FunctionName="chat-sweeper", Payload=b"{}")
        check("chat: the sweeper ran", (swept["StatusCode"], swept.get("FunctionError")), (200, None))
        left = [id_of(item) for item in open_connections(table)]
        check("chat: the sweeper removed the stale connection alone", left, [id_of(one)])
        await send(alice, action="who", room="lobby")
        check("chat: and nobody else", (await receive(alice))["who"], ["alice"])


def main():
    upload(["authorizer", "on_connect", "on_disconnect", "push_to_websocket", "enqueue", "worker", "chat_function", "chat_sweeper"])
    common = {"Architecture": "x86_64", "CodeBucket": "code", "StageName": STAGE}
    api = deploy("api", "template.yaml", JwtKey=JWT_KEY, **common)["ApiId"]
    url = f"{endpoint.replace('http://', 'ws://')}/_aws/execute-api/{api}/{STAGE}"
    connections = f"{endpoint}/_aws/execute-api/{api}/{STAGE}"
    set_environment("lambda-websocket-push-to-websocket", AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI=connections)
    manage = client("apigatewaymanagementapi", endpoint_url=connections)
    token, left = asyncio.run(use_the_api(url, manage))
    for connection in left:
        check("boto3: pushed to who has left", gone(manage, connection), 410)

    deploy("queue", "queue.yaml", ApiId=api, ReplyKey=REPLY_KEY, **common)
    # What was left out of the template.
    [route] = [route for route in client("apigatewayv2").get_routes(ApiId=api)["Items"] if route["RouteKey"] == "sum"]
    client("apigatewayv2").create_route_response(ApiId=api, RouteId=route["RouteId"], RouteResponseKey="$default")
    set_environment("lambda-websocket-enqueue", AWS_ENDPOINT_URL_SQS=endpoint)
    set_environment(
        "lambda-websocket-worker",
        AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI=connections,
        AWS_ENDPOINT_URL_DYNAMODB=endpoint,
    )
    asyncio.run(use_the_queue(url, token))

    chat = deploy("chat", "chat.yaml", JwtKey=JWT_KEY, **common)
    check("chat.yaml's table is the one that the crate makes", definition(chat["Table"]) == made_by_the_crate("made"), True)
    compare("CloudFormation", "a table's time-to-live attribute", expiry_of(chat["Table"]), expiry_of("made"))
    check("the crate's table expires", expiry_of("made"), "expiresAt")
    connections = f"{endpoint}/_aws/execute-api/{chat['ApiId']}/{STAGE}"
    for function in ("chat-function", "chat-sweeper"):
        set_environment(function, AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI=connections, AWS_ENDPOINT_URL_DYNAMODB=endpoint)
    # A period as short as the interval of the schedule lets every sweep ask about everybody.
    set_environment("chat-sweeper", CHAT_SWEEP_PERIOD="60")
    asyncio.run(use_the_chat(connections.replace("http://", "ws://"), chat["Table"]))
    for stack in ("chat", "queue", "api"):
        client("cloudformation").delete_stack(StackName=stack)
    print(f"{checks} passed, 0 failed")


main()
