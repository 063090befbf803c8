// A peer that locks by node-redlock. Driven by crates/leasehold/tests/peers.rs; the verbs are
// those of redis_py.py, except that node-redlock always wants a TTL.
"use strict";

const fs = require("node:fs");
const readline = require("node:readline");
const Redis = require("ioredis");
const Redlock = require("redlock");

const say = (word) => process.stdout.write(`${word}\n`);

async function hold(locks, key, ttl) {
  const lines = readline.createInterface({ input: process.stdin });
  const asked = new Promise((resolve) => lines.once("line", resolve));
  say("waiting");
  const lock = await locks.lock(key, ttl);
  say("held");
  await asked;
  lines.close();
  await lock.unlock().then(
    () => say("released"),
    () => say("not ours"),
  );
}

async function attempt(locks, key, ttl) {
  const lock = await locks.lock(key, ttl).catch((error) => {
    if (error.name !== "LockError") throw error;
  });
  if (lock) await lock.unlock();
  say(lock ? "held" : "refused");
}

async function contend(locks, key, ttl, times, path) {
  const who = `node-redlock ${process.pid}`;
  for (let i = 0; i < times; i++) {
    const lock = await locks.lock(key, ttl);
    await addOne(path, who);
    await lock.unlock();
  }
  say("done");
}

// Not atomic on purpose: two at once lose an addition, and leave their marks interleaved.
async function addOne(path, who) {
  fs.appendFileSync(`${path}.log`, `begin ${who}\n`);
  const number = Number(fs.readFileSync(path, "utf8"));
  await new Promise((resolve) => setTimeout(resolve, 1));
  fs.writeFileSync(path, String(number + 1));
  fs.appendFileSync(`${path}.log`, `end ${who}\n`);
}

async function main() {
  const [verb, url, key, ttl, times, path] = process.argv.slice(2);
  // Several servers vote: their URLs, with commas in between.
  const clients = url.split(",").map((one) => new Redis(one));
  const retryCount = verb === "try" ? 0 : -1;
  const locks = new Redlock(clients, { retryCount, retryDelay: 10, retryJitter: 5 });
  const verbs = { hold, try: attempt, contend };
  await verbs[verb](locks, key, Number(ttl), Number(times), path);
  clients.forEach((client) => client.disconnect());
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
