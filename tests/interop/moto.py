"""Starts moto as a server that checks signatures, which it makes again with botocore: moto.py MOTO-SERVER PORT.

Prints an access key id, its secret and the endpoint when all is ready, and ends with its standard input.
"""

import json
import subprocess
import sys
import time
import urllib.request

import boto3

program, port = sys.argv[1:]
endpoint = f"http://127.0.0.1:{port}"
server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", port], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    for attempt in range(150):
        try:
            urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=5).read()
            break
        except OSError:
            time.sleep(0.1)
    else:
        sys.exit("moto did not start")
    iam = boto3.client(
        "iam", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any"
    )
    iam.create_user(UserName="pusher")
    key = iam.create_access_key(UserName="pusher")["AccessKey"]
    allow = {"Effect": "Allow", "Action": "execute-api:*", "Resource": "*"}
    iam.put_user_policy(
        UserName="pusher", PolicyName="push", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allow]})
    )
    # From now on every request has to be signed.
    checked = urllib.request.Request(
        f"{endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}, method="POST"
    )
    urllib.request.urlopen(checked, timeout=5).read()
    print(key["AccessKeyId"], key["SecretAccessKey"], endpoint, flush=True)
    sys.stdin.read()
finally:
    server.kill()
