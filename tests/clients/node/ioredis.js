// ioredis through the data plane; prints what each feature answered as one JSON object.
"use strict";

const fs = require("node:fs");
const Redis = require("ioredis");

const uri = process.env.WEFTKIT_TEST_URI;
const protocol = Number(process.env.WEFTKIT_TEST_PROTOCOL);
const ca = fs.readFileSync(process.env.WEFTKIT_TEST_CA, "utf8");

const opened = [];

function connect(options = {}, address = uri) {
  // Once only: a second attempt would hide a defect.
  const client = new Redis(address, { protocol, retryStrategy: null, ...options });
  opened.push(client);
  return client;
}

async function pipeline(client) {
  const commands = client.pipeline();
  for (let n = 0; n < 1000; n += 1) {
    commands.set(`k${n}`, n);
  }
  commands.get("k999").incrby("k999", 1).lpush("k0", "x");
  const answers = await commands.exec();
  return {
    ok: answers.filter(([failure, answer]) => failure === null && answer === "OK").length,
    last: answers.slice(-3).map(([failure, answer]) => (failure ? failure.message : answer)),
  };
}

async function multi(client) {
  const done = await client.multi().set("n", 1).incr("n").hset("h", { a: 1, b: 2 }).hgetall("h").exec();
  const watching = connect();
  await watching.watch("n");
  await client.set("n", "changed");
  const lost = await watching.multi().set("n", "lost").exec();
  return { done: done.map(([, answer]) => answer), lost, n: await client.get("n") };
}

async function subscription(client) {
  const subscriber = connect();
  const heard = [];
  const both = new Promise((resolve) => {
    const hear = (...words) => {
      heard.push(words);
      if (heard.length === 2) resolve();
    };
    subscriber.on("message", (channel, message) => hear(channel, message));
    subscriber.on("pmessage", (pattern, channel, message) => hear(pattern, channel, message));
  });
  const count = await subscriber.subscribe("news", "weather");
  await subscriber.psubscribe("events.*");
  await client.publish("news", "one");
  await client.publish("events.new", "two");
  await both;
  const left = await subscriber.unsubscribe("news");
  return { count, heard, left, receivers: await client.publish("news", "nobody") };
}

async function blockingPop(client) {
  const waiting = connect();
  const id = await waiting.client("ID");
  const popped = waiting.blpop("queue", 30);
  // Asks until the server says that it blocks; nothing else tells.
  for (;;) {
    const listed = await client.client("LIST");
    if (listed.split("\n").some((line) => line.includes(`id=${id} `) && line.includes("cmd=blpop"))) break;
  }
  await client.rpush("queue", "job");
  return popped;
}

async function typed() {
  const mapped = protocol === 3 ? { replyMapping: "resp3" } : {};
  const client = connect(mapped);
  await client.zadd("scores", 1.5, "a");
  await client.hset("map", "f", "v");
  const hello = await client.call("HELLO");
  return {
    score: await client.zscore("scores", "a"),
    map: await client.call("HGETALL", "map"),
    proto: Array.isArray(hello) ? hello[hello.indexOf("proto") + 1] : hello.proto,
  };
}

async function scripts(client) {
  client.defineCommand("addTo", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" });
  return [await client.addTo("scripted", 5), await client.addTo("scripted", 6)];
}

async function tls() {
  const address = uri.replace("redis://", "rediss://");
  const client = connect({ tls: { ca, rejectUnauthorized: true } }, address);
  const answer = await client.ping();
  return { answer, protocol: client.stream.getProtocol(), authorized: client.stream.authorized };
}

async function main() {
  const client = connect();
  await client.flushall();
  const answers = {
    pipeline: await pipeline(client),
    multi: await multi(client),
    subscription: await subscription(client),
    blockingPop: await blockingPop(client),
    typed: await typed(),
    scripts: await scripts(client),
    tls: await tls(),
  };
  opened.forEach((one) => one.disconnect());
  process.stdout.write(JSON.stringify(answers));
}

main().catch((failure) => {
  process.stderr.write(`${failure.stack}\n`);
  process.exit(1);
});
