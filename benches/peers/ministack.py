"""Deploys the echo function to a running ministack and prints where clients connect: ministack.py ENDPOINT BINARY."""

import io
import sys
import zipfile

import boto3

endpoint, binary = sys.argv[1:]


def client(service):
    return boto3.client(
        service, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )


archive = io.BytesIO()
with zipfile.ZipFile(archive, "w") as package:
    bootstrap = zipfile.ZipInfo("bootstrap")
    bootstrap.external_attr = 0o755 << 16
    package.writestr(bootstrap, f'#!/bin/sh\nexec "{binary}" --function\n')

function = client("lambda").create_function(
    FunctionName="echo",
    Runtime="provided.al2023",
    Role="arn:aws:iam::000000000000:role/echo",
    Handler="bootstrap",
    Code={"ZipFile": archive.getvalue()},
    Timeout=29,
)["FunctionArn"]
api = client("apigatewayv2")
api_id = api.create_api(Name="echo", ProtocolType="WEBSOCKET", RouteSelectionExpression="$request.body.action")["ApiId"]
integration = api.create_integration(
    ApiId=api_id,
    IntegrationType="AWS_PROXY",
    IntegrationMethod="POST",
    IntegrationUri=f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}/invocations",
)["IntegrationId"]
route = api.create_route(
    ApiId=api_id, RouteKey="echo", Target=f"integrations/{integration}", RouteResponseSelectionExpression="$default"
)["RouteId"]
api.create_route_response(ApiId=api_id, RouteId=route, RouteResponseKey="$default")
api.create_stage(ApiId=api_id, StageName="dev", AutoDeploy=True)
print(f"{endpoint.replace('http://', 'ws://')}/_aws/execute-api/{api_id}/dev")
