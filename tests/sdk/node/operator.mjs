// The running gateway as an operator sees it, and keys made through its admin API.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";

const { SDK_TEST_URL: base, SDK_TEST_ADMIN_KEY: adminKey } = process.env;
assert(base, "run through tests/sdk/gateway.py, or `cargo xtask test --only sdk-node`");

export const url = base;
/** A token's price in nano-credits: amounts are compared as whole numbers, never as floats. */
export const TOKEN = 1000n;
const BOOKS_MS_MAX = 10_000;

/** One admin call; gives the answer's JSON and fails on anything but success. */
export async function admin(method, path, body) {
  const answer = await fetch(`${base}/admin/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${adminKey}`, "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  assert(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
  return JSON.parse(text);
}

/** A key with an account and credits of its own. */
export const newKey = (more = { credits: "1" }) => admin("POST", "/keys", { name: "sdk test", ...more });

/** The requests of a key once `count` of them are written: the books follow within milliseconds. */
export async function charges(key, count) {
  for (const deadline = Date.now() + BOOKS_MS_MAX; ; await setTimeout(20)) {
    const { data } = await admin("GET", `/charges?key_id=${key.id}`);
    if (data.length >= count || Date.now() > deadline) {
      assert.equal(data.length, count);
      return data;
    }
  }
}

/** What the account of a key has in all, in nano-credits, once so many requests are written. */
export async function left(key, count) {
  await charges(key, count);
  const { balance } = await admin("GET", `/accounts/${key.account_id}`);
  assert.equal(balance.held, "0");
  return nanos(balance.total);
}

/** How many requests the gateway has answered, retries included. */
export async function requests(labels) {
  const text = await (await fetch(`${base}/metrics`)).text();
  let sum = 0;
  for (const [, series, value] of text.matchAll(/^tollway_requests_total\{(.*)\} (\S+)$/gm)) {
    if (Object.entries(labels).every(([name, wanted]) => series.includes(`${name}="${wanted}"`))) {
      sum += Number(value);
    }
  }
  return sum;
}

/** Counts a chat as the gateway does, without spending anything. */
export async function promptTokens(key, body) {
  const answer = await fetch(`${base}/v1/quote`, {
    method: "POST",
    headers: { authorization: `Bearer ${key.secret}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 200);
  return BigInt((await answer.json()).prompt_tokens);
}

/** Decimal text as nano-credits. */
export function nanos(text) {
  const [, sign, whole, part = ""] = /^(-?)(\d+)(?:\.(\d{1,9}))?$/.exec(text);
  const amount = BigInt(whole) * 1_000_000_000n + BigInt(part.padEnd(9, "0"));
  return sign ? -amount : amount;
}

/** Nano-credits as decimal text. */
export const credits = (amount) =>
  `${amount / 1_000_000_000n}.${(amount % 1_000_000_000n).toString().padStart(9, "0")}`;

/** A key that can pay for the prompt of a chat and so many tokens of output. */
export async function poorKey(body, paid) {
  const prompt = await promptTokens(await newKey(), body);
  return newKey({ credits: credits((prompt + BigInt(paid)) * TOKEN) });
}

/** Reads a stream; gives what came and what was thrown, if anything. */
export async function read(stream) {
  const chunks = [];
  try {
    for await (const chunk of await stream) chunks.push(chunk);
  } catch (error) {
    return [chunks, error];
  }
  return [chunks, undefined];
}

/** What a promise is rejected with; it must be of this class. */
export async function rejection(promise, kind) {
  const error = await promise.then(
    () => assert.fail("nothing was thrown"),
    (error) => error,
  );
  assert(error instanceof kind, `${error?.constructor?.name}: ${error}`);
  return error;
}
