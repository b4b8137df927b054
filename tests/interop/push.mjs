// Pushes to a connection with AWS's SDK for JavaScript: push.mjs ENDPOINT CONNECTION-ID, the SDK beside it in node_modules.
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const {
  ApiGatewayManagementApiClient,
  DeleteConnectionCommand,
  GetConnectionCommand,
  PostToConnectionCommand,
} = require("@aws-sdk/client-apigatewaymanagementapi");

const [endpoint, ConnectionId] = process.argv.slice(2);
const client = new ApiGatewayManagementApiClient({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "any", secretAccessKey: "any" },
});

async function call(command) {
  try {
    const answer = await client.send(command);
    return [answer.$metadata.httpStatusCode, answer.Identity?.UserAgent ?? null];
  } catch (error) {
    return [error.$metadata?.httpStatusCode ?? String(error), error.name];
  }
}

const results = [];
results.push(await call(new PostToConnectionCommand({ ConnectionId, Data: "é from JavaScript" })));
results.push(await call(new GetConnectionCommand({ ConnectionId })));
results.push(await call(new DeleteConnectionCommand({ ConnectionId })));
results.push(await call(new PostToConnectionCommand({ ConnectionId, Data: "late" })));
console.log(JSON.stringify(results));
