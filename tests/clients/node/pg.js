// node-postgres through the data plane; prints what each feature answered as one JSON object.
"use strict";

const fs = require("node:fs");
const { Client, Pool } = require("pg");

const connectionString = process.env.WEFTKIT_TEST_URI;
const ca = fs.readFileSync(process.env.WEFTKIT_TEST_CA, "utf8");

async function connected(options = {}) {
  const client = new Client({ connectionString, ...options });
  await client.connect();
  return client;
}

async function query(client) {
  const text = "SELECT $1::int AS n, $2::text AS t, $3::jsonb AS j, $4::int[] AS a, $5::bytea AS b";
  const values = [42, "naïve", { a: [1, null] }, [1, 2], Buffer.from([0, 255])];
  const { rows, fields } = await client.query(text, values);
  return { ...rows[0], b: rows[0].b.toString("hex"), names: fields.map((field) => field.name) };
}

async function transaction(client) {
  await client.query("DROP TABLE IF EXISTS node_accounts");
  await client.query("CREATE TABLE node_accounts (id int PRIMARY KEY, balance int)");
  await client.query("BEGIN");
  const inserted = await client.query("INSERT INTO node_accounts VALUES (1, 10), (2, 20)");
  await client.query("COMMIT");
  await client.query("BEGIN");
  await client.query("UPDATE node_accounts SET balance = 0");
  const inside = await client.query("SELECT sum(balance)::int AS n FROM node_accounts");
  await client.query("ROLLBACK");
  const after = await client.query("SELECT sum(balance)::int AS n FROM node_accounts");
  return { inserted: inserted.rowCount, inside: inside.rows[0].n, after: after.rows[0].n };
}

async function error(client) {
  try {
    await client.query("INSERT INTO node_accounts VALUES (1, 1)");
  } catch (refused) {
    const alive = await client.query("SELECT 1 AS n");
    return { code: refused.code, constraint: refused.constraint, alive: alive.rows[0].n };
  }
  return null;
}

async function prepared(client) {
  const answers = [];
  for (let n = 0; n < 20; n += 1) {
    const statement = { name: "double", text: "SELECT $1::int * 2 AS n", values: [n] };
    const { rows } = await client.query(statement);
    answers.push(rows[0].n);
  }
  const known = await client.query(
    "SELECT count(*)::int AS n FROM pg_prepared_statements WHERE name = 'double'",
  );
  return { answers, known: known.rows[0].n };
}

async function notification(client) {
  const listener = await connected();
  const heard = new Promise((resolve) => listener.once("notification", resolve));
  await listener.query("LISTEN node_news");
  await client.query("SELECT pg_notify('node_news', $1)", ["hello"]);
  const { channel, payload } = await heard;
  await listener.end();
  return { channel, payload };
}

async function pool() {
  const clients = new Pool({ connectionString, max: 10 });
  const answers = await Promise.all(
    Array.from({ length: 200 }, (_, n) =>
      clients.query("SELECT $1::int AS n, pg_backend_pid() AS pid", [n])),
  );
  const held = await Promise.all(Array.from({ length: 10 }, () => clients.connect()));
  const pids = await Promise.all(held.map((one) => one.query("SELECT pg_backend_pid() AS pid")));
  held.forEach((one) => one.release());
  const total = clients.totalCount;
  await clients.end();
  return {
    sum: answers.reduce((sum, { rows }) => sum + rows[0].n, 0),
    backends: new Set(pids.map(({ rows }) => rows[0].pid)).size,
    total,
  };
}

async function tls() {
  const results = {};
  for (const sslnegotiation of ["postgres", "direct"]) {
    const client = await connected({ ssl: { ca, rejectUnauthorized: true }, sslnegotiation });
    const { rows } = await client.query("SELECT 1 AS n");
    results[sslnegotiation] = {
      n: rows[0].n,
      protocol: client.connection.stream.getProtocol(),
      authorized: client.connection.stream.authorized,
    };
    await client.end();
  }
  return results;
}

async function main() {
  const client = await connected();
  const answers = {
    query: await query(client),
    transaction: await transaction(client),
    error: await error(client),
    prepared: await prepared(client),
    notification: await notification(client),
    pool: await pool(),
    tls: await tls(),
  };
  await client.query("DROP TABLE node_accounts");
  await client.end();
  process.stdout.write(JSON.stringify(answers));
}

main().catch((failure) => {
  process.stderr.write(`${failure.stack}\n`);
  process.exit(1);
});
