// AWS SDK 3 through the data plane; prints what each feature answered as one JSON object.
"use strict";

const fs = require("node:fs");
const https = require("node:https");
const sdk = require("@aws-sdk/client-dynamodb");
const lib = require("@aws-sdk/lib-dynamodb");

const endpoint = process.env.WEFTKIT_TEST_URI;
const ca = fs.readFileSync(process.env.WEFTKIT_TEST_CA, "utf8");
const credentials = {
  accessKeyId: process.env.WEFTKIT_TEST_USER,
  secretAccessKey: process.env.WEFTKIT_TEST_PASSWORD,
};
const WAIT = { maxWaitTime: 30, minDelay: 1, maxDelay: 2 };

const opened = [];

function connect(options = {}) {
  // Once only: a second attempt would hide a defect.
  const client = new sdk.DynamoDBClient({
    endpoint, region: "us-east-1", credentials, maxAttempts: 1, ...options,
  });
  opened.push(client);
  return client;
}

async function refusal(promise) {
  try {
    await promise;
  } catch (refused) {
    return refused;
  }
  return { name: "nothing was refused" };
}

async function tables(client) {
  await client.send(new sdk.CreateTableCommand({
    TableName: "node-sessions",
    AttributeDefinitions: [{ AttributeName: "sessionId", AttributeType: "S" }],
    KeySchema: [{ AttributeName: "sessionId", KeyType: "HASH" }],
    BillingMode: "PAY_PER_REQUEST",
  }));
  await client.send(new sdk.CreateTableCommand({
    TableName: "node-orders",
    AttributeDefinitions: [
      { AttributeName: "customerId", AttributeType: "N" },
      { AttributeName: "orderId", AttributeType: "S" },
    ],
    KeySchema: [
      { AttributeName: "customerId", KeyType: "HASH" },
      { AttributeName: "orderId", KeyType: "RANGE" },
    ],
    BillingMode: "PAY_PER_REQUEST",
  }));
  const states = [];
  for (const TableName of ["node-sessions", "node-orders"]) {
    const waited = await sdk.waitUntilTableExists({ client, ...WAIT }, { TableName });
    states.push(waited.state);
  }
  const listed = [];
  for await (const page of sdk.paginateListTables({ client, pageSize: 1 }, {})) {
    listed.push(...page.TableNames);
  }
  return { states, listed: listed.filter((name) => name.startsWith("node-")) };
}

async function crud(client) {
  const TableName = "node-sessions";
  const Key = { sessionId: { S: "abc123" } };
  const Item = { ...Key, userId: { N: "42" }, data: { S: '{"theme":"dark"}' }, ttl: { N: "4000000000" } };
  await client.send(new sdk.PutItemCommand({ TableName, Item }));
  const put = await client.send(new sdk.GetItemCommand({ TableName, Key }));
  await client.send(new sdk.DeleteItemCommand({ TableName, Key }));
  const deleted = await client.send(new sdk.GetItemCommand({ TableName, Key }));
  return { put: put.Item, deleted: deleted.Item === undefined };
}

async function batches(client) {
  const written = await client.send(new sdk.BatchWriteItemCommand({
    RequestItems: {
      "node-sessions": [
        { PutRequest: { Item: { sessionId: { S: "x1" }, data: { S: "{}" } } } },
        { DeleteRequest: { Key: { sessionId: { S: "old123" } } } },
      ],
    },
  }));
  const got = await client.send(new sdk.BatchGetItemCommand({
    RequestItems: { "node-sessions": { Keys: [{ sessionId: { S: "x1" } }, { sessionId: { S: "x2" } }] } },
  }));
  return {
    unprocessed: [written.UnprocessedItems, got.UnprocessedKeys],
    found: got.Responses["node-sessions"],
  };
}

async function timeToLive(client) {
  const TableName = "node-sessions";
  const changed = await client.send(new sdk.UpdateTimeToLiveCommand({
    TableName, TimeToLiveSpecification: { Enabled: true, AttributeName: "ttl" },
  }));
  const told = await client.send(new sdk.DescribeTimeToLiveCommand({ TableName }));
  return {
    changed: changed.TimeToLiveSpecification,
    attribute: told.TimeToLiveDescription.AttributeName,
  };
}

async function documents(client) {
  const document = lib.DynamoDBDocumentClient.from(client);
  const TableName = "node-orders";
  const Item = {
    customerId: 42, orderId: "a", price: 19.99, paid: true, note: null,
    wares: [{ sku: "x", count: 2 }], tags: new Set(["one"]), raw: new Uint8Array([0, 255]),
  };
  await document.send(new lib.PutCommand({ TableName, Item }));
  const got = await document.send(new lib.GetCommand({ TableName, Key: { customerId: 42, orderId: "a" } }));
  for (let n = 0; n < 25; n += 1) {
    const order = { customerId: 7, orderId: String(n).padStart(2, "0"), n };
    await document.send(new lib.PutCommand({ TableName, Item: order }));
  }
  const pages = [];
  const query = {
    TableName,
    KeyConditionExpression: "customerId = :cid",
    ExpressionAttributeValues: { ":cid": 7 },
  };
  for await (const page of lib.paginateQuery({ client: document, pageSize: 10 }, query)) {
    pages.push(page.Items.map((item) => item.n));
  }
  const changed = await document.send(new lib.UpdateCommand({
    TableName,
    Key: { customerId: 42, orderId: "a" },
    UpdateExpression: "SET wares[0].#c = wares[0].#c + :one REMOVE note",
    ExpressionAttributeNames: { "#c": "count" },
    ExpressionAttributeValues: { ":one": 1 },
    ReturnValues: "ALL_NEW",
  }));
  const { tags, raw, ...rest } = got.Item;
  return {
    item: { ...rest, tags: [...tags], raw: [...raw] },
    pages: pages.map((page) => page.length),
    ordered: pages.flat().every((n, position) => n === position),
    wares: changed.Attributes.wares,
    hasNote: "note" in changed.Attributes,
  };
}

async function transaction(client) {
  const document = lib.DynamoDBDocumentClient.from(client);
  const TableName = "node-sessions";
  const put = (sessionId, condition) => ({
    Put: { TableName, Item: { sessionId }, ...(condition && { ConditionExpression: condition }) },
  });
  await document.send(new lib.TransactWriteCommand({ TransactItems: [put("t1"), put("t2")] }));
  const refused = await refusal(document.send(new lib.TransactWriteCommand({
    TransactItems: [put("t3"), put("t1", "attribute_not_exists(sessionId)")],
  })));
  const got = await document.send(new lib.TransactGetCommand({
    TransactItems: ["t1", "t2", "t3"].map((sessionId) => ({ Get: { TableName, Key: { sessionId } } })),
  }));
  return {
    name: refused.name,
    codes: refused.CancellationReasons.map((reason) => reason.Code),
    found: got.Responses.map((response) => response.Item ?? null),
  };
}

async function errors(client) {
  const nowhere = await refusal(client.send(new sdk.DescribeTableCommand({ TableName: "nowhere" })));
  const condition = await refusal(client.send(new sdk.PutItemCommand({
    TableName: "node-sessions",
    Item: { sessionId: { S: "x1" } },
    ConditionExpression: "attribute_not_exists(sessionId)",
    ReturnValuesOnConditionCheckFailure: "ALL_OLD",
  })));
  const stranger = connect({ credentials: { ...credentials, secretAccessKey: "wrong" } });
  const unknown = await refusal(stranger.send(new sdk.ListTablesCommand({})));
  return {
    nowhere: [nowhere.name, nowhere instanceof sdk.ResourceNotFoundException],
    condition: [condition.name, condition.Item],
    unknown: [unknown.name, unknown.$metadata.httpStatusCode],
  };
}

async function tls() {
  const secure = connect({
    endpoint: endpoint.replace("http://", "https://"),
    requestHandler: { httpsAgent: new https.Agent({ ca, keepAlive: true }) },
  });
  const answer = await secure.send(new sdk.DescribeTableCommand({ TableName: "node-sessions" }));
  return answer.Table.TableStatus;
}

async function removal(client) {
  const states = [];
  for (const TableName of ["node-sessions", "node-orders"]) {
    await client.send(new sdk.DeleteTableCommand({ TableName }));
    const waited = await sdk.waitUntilTableNotExists({ client, ...WAIT }, { TableName });
    states.push(waited.state);
  }
  return states;
}

async function main() {
  const client = connect();
  const answers = {
    tables: await tables(client),
    crud: await crud(client),
    batches: await batches(client),
    timeToLive: await timeToLive(client),
    documents: await documents(client),
    transaction: await transaction(client),
    errors: await errors(client),
    tls: await tls(),
    removal: await removal(client),
  };
  opened.forEach((one) => one.destroy());
  process.stdout.write(JSON.stringify(answers));
}

main().catch((failure) => {
  process.stderr.write(`${failure.stack}\n`);
  process.exit(1);
});
