"""A function without a library: it speaks the Lambda Runtime API itself, and does what the message's `do` says."""

import http.client
import json
import os
import sys
import time

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])


def call(method, path, body=None):
    api.request(method, f"/2018-06-01/runtime/{path}", body)
    answer = api.getresponse()
    return answer, answer.read()


if os.environ.get("FAIL_AT_START"):
    call("POST", "init/error", json.dumps({"errorType": "Config", "errorMessage": "no start"}))
    sys.exit(1)

while True:
    answer, event = call("GET", "invocation/next")
    invocation = answer.getheader("lambda-runtime-aws-request-id")
    event = json.loads(event)
    message = json.loads(event.get("body", "{}"))
    if message.get("do") == "die":
        os._exit(3)
    if message.get("do") == "sleep":
        time.sleep(60)
    if message.get("do") == "fail":
        error = {"errorType": "OnPurpose", "errorMessage": "it shall fail"}
        call("POST", f"invocation/{invocation}/error", json.dumps(error))
        continue
    body = json.dumps(
        {
            "pid": os.getpid(),
            "number": message.get("number"),
            "deadline": int(answer.getheader("lambda-runtime-deadline-ms")),
            "trace": answer.getheader("lambda-runtime-trace-id"),
            "name": os.environ["AWS_LAMBDA_FUNCTION_NAME"],
        }
    )
    call("POST", f"invocation/{invocation}/response", json.dumps({"statusCode": 200, "body": body}))
