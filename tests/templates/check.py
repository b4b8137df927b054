"""Compares the templates with each other and with the examples' code: check.py TEMPLATES EXAMPLES.

The templates are converted to one form: the function of each route and whether the route has a route response, the
permissions to invoke a function, and the permissions of a function. AWS's own translator expands the SAM template.
"""

import json
import os
import re
import sys

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from cfnlint.decode import cfn_yaml
from samtranslator.translator.transform import transform

templates, examples = sys.argv[1:]
failures = checks = 0


def check(what, found, expected):
    global checks, failures
    if found == expected:
        checks += 1
        print(f"ok  {what}")
    else:
        failures += 1
        print(f"FAILED  {what}:\n    found    {found}\n    expected {expected}")


def plain(node):
    """Returns the template without the positions that cfn-lint adds to it."""
    return json.loads(json.dumps(node, default=str))


def load(name):
    return plain(cfn_yaml.load(os.path.join(templates, name)))


def from_sam(template):
    class NoManagedPolicies:
        def load(self):
            return {}

    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            # `sam package` uploads the archive.
            resource["Properties"]["CodeUri"] = "s3://code/" + os.path.basename(resource["Properties"]["CodeUri"])
    return plain(transform(template, {"StageName": "dev"}, NoManagedPolicies()))


def of_type(resources, kind):
    return {name: it.get("Properties", {}) for name, it in resources.items() if it["Type"] == f"AWS::{kind}"}


def functions_in(node, functions):
    """Returns the functions that a part of a template refers to."""
    return sorted(name for name in functions if re.search(rf'\b{name}\b', json.dumps(node)))


def text_of(node):
    """Returns an ARN as a string, with one name for the API and one for the stage."""
    while isinstance(node, dict):
        node = next(iter(node.values()))
    text = node[0] if isinstance(node, list) else node
    for name in ("${Api.ApiId}", "${ApiId}", "${__ApiId__}"):
        text = text.replace(name, "${Api}")
    return text.replace("${__StageName__}", "${StageName}")


def normal(template):
    resources = template["Resources"]
    functions = of_type(resources, "Lambda::Function")
    integrations = of_type(resources, "ApiGatewayV2::Integration")
    authorizers = of_type(resources, "ApiGatewayV2::Authorizer")
    has_route_response = [json.dumps(it["RouteId"]) for it in of_type(resources, "ApiGatewayV2::RouteResponse").values()]
    routes = {}
    for name, route in of_type(resources, "ApiGatewayV2::Route").items():
        [integration] = [it for id, it in integrations.items() if re.search(rf'\b{id}\b', json.dumps(route["Target"]))]
        assert integration["IntegrationType"] == "AWS_PROXY", name
        authorizer = None
        if route.get("AuthorizationType") == "CUSTOM":
            [authorizer] = [it for id, it in authorizers.items() if id in json.dumps(route["AuthorizerId"])]
            authorizer = {
                "type": authorizer["AuthorizerType"],
                "sources": authorizer["IdentitySource"],
                "functions": functions_in(authorizer["AuthorizerUri"], functions),
            }
        routes[route["RouteKey"]] = {
            "functions": functions_in(integration["IntegrationUri"], functions),
            "authorizer": authorizer,
            "has_route_response": json.dumps({"Ref": name}) in has_route_response,
        }
    permissions = set()
    for permission in of_type(resources, "Lambda::Permission").values():
        if permission["Principal"] == "events.amazonaws.com":
            continue
        assert permission["Principal"] == "apigateway.amazonaws.com"
        source = text_of(permission["SourceArn"]).split("${Api}/", 1)[1]
        # An authorizer is identified by its resource, whose name differs between the templates.
        source = re.sub(r"authorizers/.*", "authorizers/*", source)
        permissions.update((function, source) for function in functions_in(permission["FunctionName"], functions))
    pushing = set()
    for policy in of_type(resources, "IAM::Policy").values():
        for statement in policy["PolicyDocument"]["Statement"]:
            pushing.add((statement["Effect"], statement["Action"], text_of(statement["Resource"])))
    for role in of_type(resources, "IAM::Role").values():
        for policy in role.get("Policies", []):
            for statement in policy.get("PolicyDocument", {}).get("Statement", []):
                if "execute-api" in json.dumps(statement):
                    pushing.add((statement["Effect"], statement["Action"], text_of(statement["Resource"])))
    environments = {
        name: sorted(function.get("Environment", {}).get("Variables", {})) for name, function in functions.items()
    }
    apis = of_type(resources, "ApiGatewayV2::Api")
    return {
        "selection": [api["RouteSelectionExpression"] for api in apis.values()],
        "routes": routes,
        "permissions": permissions,
        "pushing": pushing,
        "environments": environments,
    }


def code(name):
    with open(os.path.join(examples, f"{name}.rs"), encoding="utf-8") as source:
        return source.read()


def keys_in_code(names):
    """Returns the route keys of these examples, from their `Route`s and their routers."""
    found = []
    for name in names:
        found += re.findall(r"const KEY: &'static str = \"([^\"]+)\";", code(name))
        found += re.findall(r"\.on\(\"([^\"]+)\",", code(name))
    return sorted(found)


def replies_reach_clients(name, template, key, example):
    """Checks that a route has a route response unless its router pushes replies.

    With both, clients may get an additional empty frame.
    """
    check(f"{name}: {key} has a route response unless {example} pushes its replies",
          template["routes"][key]["has_route_response"], ".push_replies(" not in code(example))


plain_one, sam, queue = normal(load("template.yaml")), normal(from_sam(load("sam.yaml"))), normal(load("queue.yaml"))
chat = normal(load("chat.yaml"))
# In the SAM template, the key is a parameter.
SECRET = {"JWT_KEY_SECRET", "PARAMETERS_SECRETS_EXTENSION_CACHE_ENABLED"}
read_by_authorizer = plain_one["environments"]["AuthorizerFunction"]
check("template.yaml supports the secret", SECRET - set(read_by_authorizer), set())
plain_one["environments"]["AuthorizerFunction"] = [name for name in read_by_authorizer if name not in SECRET]
for part in ("selection", "routes", "permissions", "pushing", "environments"):
    check(f"template.yaml and sam.yaml have the same {part}", sam[part], plain_one[part])
keys = keys_in_code(["on_connect", "on_disconnect", "push_to_websocket"])
check("template.yaml has the routes of the code", sorted(plain_one["routes"]), keys)
check("sam.yaml has the routes of the code", sorted(sam["routes"]), keys)
check("queue.yaml has the routes of the code", sorted(queue["routes"]), keys_in_code(["enqueue"]))
check("chat.yaml has the routes of the code", sorted(chat["routes"]), sorted(keys_in_code(["chat_function"]) + ["$connect", "$disconnect"]))
check("chat.yaml has the same authorizer as template.yaml", chat["routes"]["$connect"]["authorizer"], plain_one["routes"]["$connect"]["authorizer"])
replies_reach_clients("template.yaml", plain_one, "pushtowebsocket", "push_to_websocket")
replies_reach_clients("sam.yaml", sam, "pushtowebsocket", "push_to_websocket")
replies_reach_clients("queue.yaml", queue, "sum", "enqueue")
for key in keys_in_code(["chat_function"]):
    replies_reach_clients("chat.yaml", chat, key, "chat_function")
check("template.yaml and queue.yaml allow the same pushes", queue["pushing"], plain_one["pushing"])

for name, template in (("template.yaml", plain_one), ("queue.yaml", queue), ("chat.yaml", chat)):
    called = {(function, f"${{StageName}}/{key}") for key, route in template["routes"].items() for function in route["functions"]}
    asked = {(f, "authorizers/*") for route in template["routes"].values() if route["authorizer"] for f in route["authorizer"]["functions"]}
    check(f"{name}: API Gateway may invoke the functions of the routes and the authorizer, and no others", template["permissions"], called | asked)
for name in ("template.yaml", "chat.yaml"):
    deployed = load(name)["Resources"]
    routes = sorted(name for name, it in deployed.items() if it["Type"] == "AWS::ApiGatewayV2::Route")
    check(f"{name}: the deployment depends on every route", sorted(deployed["Deployment"]["DependsOn"]), routes)
allowed = [(effect, action, resource.rsplit("/", 3)[1:]) for effect, action, resource in plain_one["pushing"]]
check("template.yaml: pushing is the only permission on connections", allowed, [("Allow", "execute-api:ManageConnections", ["POST", "@connections", "*"])])
expiry = load("chat.yaml")["Resources"]["ConnectionsTable"]["Properties"]["TimeToLiveSpecification"]
check("chat.yaml: connections expire", expiry, {"AttributeName": "expiresAt", "Enabled": True})
allowed = sorted((effect, action, resource.rsplit("/", 3)[1:]) for effect, action, resource in chat["pushing"])
methods = [("Allow", "execute-api:ManageConnections", [method, "@connections", "*"]) for method in ("DELETE", "GET", "POST")]
check("chat.yaml: POST, GET, and DELETE are the only permissions on connections", allowed, methods)
read = {name: set(re.findall(r'(?:env::var|variable)\("([A-Z_]+)"\)', code(name)))
        for name in ("authorizer", "enqueue", "worker", "chat_function", "chat_sweeper")}
check("the authorizer has the environment variables that it reads", set(plain_one["environments"]["AuthorizerFunction"]) | {"JWT_KEY_SECRET"}, read["authorizer"])
check("enqueue has the environment variables that it reads", set(queue["environments"]["EnqueueFunction"]), read["enqueue"])
check("the worker has the environment variables that it reads", set(queue["environments"]["WorkerFunction"]),
      read["worker"] - {"IDEMPOTENCY_LEASE"} | {"API_GATEWAY_ID", "STAGE"})
check("the chat has the environment variables that it reads", set(chat["environments"]["ChatFunction"]), read["chat_function"] | {"API_GATEWAY_ID", "STAGE"})
check("the chat's sweeper has the environment variables that it reads", set(chat["environments"]["SweeperFunction"]), read["chat_sweeper"])
given_up = int(re.search(r"MAX_RECEIVE_COUNT: u32 = (\d+);", code("worker")).group(1))
check("the worker's maximum receive count is that of the queue",
      load("queue.yaml")["Resources"]["Jobs"]["Properties"]["RedrivePolicy"]["maxReceiveCount"], given_up)
print(f"{checks} passed, {failures} failed")
sys.exit(1 if failures else 0)
