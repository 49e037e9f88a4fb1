// openai-node, unmodified, against the running gateway.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { TOKEN, charges, left, nanos, newKey, poorKey, read, rejection, requests, url } from "./operator.mjs";

const ASK = [{ role: "user", content: "Tell me something nice." }];
const CALL = [{ role: "user", content: "Please call the tool." }];
const WEATHER = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city.",
    parameters: {
      type: "object",
      properties: { city: { type: "string" }, days: { type: "integer" } },
      required: ["city", "days"],
    },
  },
};
const ARGUMENTS = { city: "demo", days: 1 };
const ANSWER = zodResponseFormat(z.object({ answer: z.string() }), "answer");
const PAID = 20;
const WITH_USAGE = { stream: true, stream_options: { include_usage: true } };

/** Retries as the SDK has them, unless told otherwise. */
const connect = (key, more) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key.secret ?? key, ...more });

/** A client that can pay for its prompt and PAID tokens of output. */
async function poor() {
  const key = await poorKey({ model: "mock", messages: ASK, stream: true }, PAID);
  return [key, connect(key)];
}

const textOf = (chunks) =>
  chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.delta.content ?? "")).join("");

const chat = (client, more) => client.chat.completions.create({ model: "mock", messages: ASK, ...more });

// --- What works --------------------------------------------------------------------------------

test("models are listed", async () => {
  const client = connect(await newKey());
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert(ids.includes("mock"));
  assert.equal((await client.models.retrieve("mock")).owned_by, "scripted");
  assert.equal((await client.models.retrieve("scripted/mock")).id, "scripted/mock");
});

test("chat", async () => {
  const key = await newKey();
  const answer = await chat(connect(key));
  assert(answer.choices[0].message.content.split(" ").length > 40);
  assert.equal(answer.choices[0].finish_reason, "stop");
  const { usage } = answer;
  assert.equal(typeof usage.cost, "string");
  assert.equal(nanos(usage.cost), BigInt(usage.prompt_tokens + usage.completion_tokens) * TOKEN);
  assert.equal(nanos("1") - (await left(key, 1)), nanos(usage.cost));
});

test("a stream has the text of the plain answer, and no usage unasked", async () => {
  const client = connect(await newKey());
  const plain = await chat(client);
  const [chunks, error] = await read(chat(client, { stream: true }));
  assert.equal(error, undefined);
  assert.equal(textOf(chunks), plain.choices[0].message.content);
  assert(chunks.every((chunk) => !chunk.usage));
});

test("a stream reports usage when asked", async () => {
  const key = await newKey();
  const [chunks] = await read(chat(connect(key), WITH_USAGE));
  const last = chunks.at(-1);
  assert.deepEqual(chunks.filter((chunk) => chunk.usage), [last]);
  assert.deepEqual(last.choices, []);
  assert.equal(typeof last.usage.cost, "string");
  assert.equal(nanos("1") - (await left(key, 1)), nanos(last.usage.cost));
});

test("the streaming helper", async () => {
  const stream = connect(await newKey()).chat.completions.stream({ model: "mock", messages: ASK, ...WITH_USAGE });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, text);
  assert((await stream.totalUsage()).completion_tokens > 40);
});

test("tools", async () => {
  const answer = await chat(connect(await newKey()), { messages: CALL, tools: [WEATHER] });
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(answer.choices[0].finish_reason, "tool_calls");
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(JSON.parse(call.function.arguments), ARGUMENTS);
});

test("streamed tools are put together", async () => {
  const client = connect(await newKey());
  const stream = client.chat.completions.stream({ model: "mock", messages: CALL, tools: [WEATHER] });
  const [call] = (await stream.finalMessage()).tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(JSON.parse(call.function.arguments), ARGUMENTS);
});

test("structured output, plain and streamed", async () => {
  const client = connect(await newKey());
  const body = { model: "mock", messages: ASK, response_format: ANSWER };
  const plain = await client.chat.completions.parse(body);
  assert.deepEqual(plain.choices[0].message.parsed, { answer: "yes" });
  const streamed = await client.chat.completions.stream(body).finalChatCompletion();
  assert.deepEqual(streamed.choices[0].message.parsed, { answer: "yes" });
});

test("raw responses have the headers", async () => {
  const { data, response, request_id } = await chat(connect(await newKey())).withResponse();
  assert.match(response.headers.get("x-request-id"), /^req_/);
  assert.equal(request_id, response.headers.get("x-request-id"));
  assert.equal(response.headers.get("x-tollway-max-tokens"), null);
  assert(data.choices[0].message.content);
});

test("a limit that was lowered is told", async () => {
  const [key, client] = await poor();
  const { data, response } = await chat(client).withResponse();
  const most = Number(response.headers.get("x-tollway-max-tokens"));
  assert(most >= 1 && most <= PAID, `${most}`);
  assert.equal(data.usage.completion_tokens, most);
  assert.equal(data.choices[0].finish_reason, "length");
  assert((await left(key, 1)) >= 0n);
});

// --- What throws -------------------------------------------------------------------------------

test("an unknown key is 401", async () => {
  const error = await rejection(chat(connect("sk-tw-unknown")), OpenAI.AuthenticationError);
  assert.deepEqual([error.status, error.code], [401, "invalid_api_key"]);
});

for (const stream of [false, true]) {
  test(`no credits is 402 and not retried, stream: ${stream}`, async () => {
    const client = connect(await newKey({}));
    const before = await requests({ status: "402" });
    const error = await rejection(chat(client, { stream }), OpenAI.APIError);
    assert.deepEqual([error.status, error.code, error.type], [402, "insufficient_quota", "insufficient_quota"]);
    assert.equal(error.headers.get("x-should-retry"), "false");
    const { metadata } = error.error;
    assert.equal(metadata.reason, "credits_exhausted");
    assert.equal(metadata.scope, "account");
    assert.equal(metadata.top_up_url, "https://pay.example/top-up");
    assert.equal(metadata.request_id, error.requestID);
    assert(nanos(metadata.required) > 0n);
    assert.equal((await requests({ status: "402" })) - before, 1);
  });
}

test("402 in the middle of a stream", async () => {
  const whole = (await chat(connect(await newKey()))).choices[0].message.content;
  const [key, client] = await poor();
  const before = await requests({ model: "mock" });
  const [chunks, error] = await read(chat(client, WITH_USAGE));
  assert(error instanceof OpenAI.APIError, `${error}`);
  assert.deepEqual([error.code, error.type], ["insufficient_quota", "insufficient_quota"]);
  assert.equal(error.error.status, 402);
  assert.equal(error.error.metadata.reason, "credits_exhausted");
  const text = textOf(chunks);
  assert(text && whole.startsWith(text) && text.length < whole.length, "the partial text is kept");
  assert(chunks.every((chunk) => chunk.choices.every((choice) => choice.finish_reason === null)));
  const usages = chunks.filter((chunk) => chunk.usage).map((chunk) => chunk.usage);
  assert.deepEqual(usages.map((usage) => usage.completion_tokens), [PAID]);
  assert.equal(await left(key, 1), 0n, "all that was paid in is used, and not a bit more");
  assert.equal((await requests({ model: "mock" })) - before, 1, "the SDK tried again");
  const [charge] = await charges(key, 1);
  assert.equal(charge.end, "credits_exhausted");
  assert.equal(charge.charged, usages[0].cost);
});

test("402 in the middle without usage asked", async () => {
  const [, client] = await poor();
  const [chunks, error] = await read(chat(client, { stream: true }));
  assert.equal(error?.code, "insufficient_quota");
  assert(textOf(chunks));
  assert(chunks.every((chunk) => !chunk.usage));
});

test("402 in the middle with the streaming helper", async () => {
  const [, client] = await poor();
  const stream = client.chat.completions.stream({ model: "mock", messages: ASK });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  const error = await rejection(stream.finalChatCompletion(), OpenAI.APIError);
  assert.equal(error.code, "insufficient_quota");
  assert(text);
});

test("an unknown model is 404", async () => {
  const client = connect(await newKey());
  const error = await rejection(chat(client, { model: "gpt-nothing" }), OpenAI.NotFoundError);
  assert.deepEqual([error.code, error.param], ["model_not_found", "model"]);
});

test("a wrong parameter is 400", async () => {
  const client = connect(await newKey());
  const error = await rejection(chat(client, { max_tokens: -1 }), OpenAI.BadRequestError);
  assert.deepEqual([error.code, error.param], ["invalid_request", "max_tokens"]);
});

test("too fast is 429", async () => {
  const client = connect(await newKey(), { maxRetries: 0 });
  const error = await rejection(chat(client, { model: "mock-429" }), OpenAI.RateLimitError);
  assert.equal(error.code, "rate_limit_exceeded");
  assert(Number(error.headers.get("retry-after")) >= 1);
});

test("what may be retried is retried and counted", async () => {
  // The other side of "not retried": the same count sees the SDK's second attempt.
  const client = connect(await newKey(), { maxRetries: 1 });
  const before = await requests({ model: "mock-429", status: "429" });
  await rejection(chat(client, { model: "mock-429" }), OpenAI.RateLimitError);
  assert.equal((await requests({ model: "mock-429", status: "429" })) - before, 2);
});

test("a failed provider is 502, a cut stream throws", async () => {
  const client = connect(await newKey(), { maxRetries: 0 });
  const error = await rejection(chat(client, { model: "mock-500" }), OpenAI.InternalServerError);
  assert.deepEqual([error.status, error.code], [502, "upstream_error"]);
  const [chunks, cut] = await read(chat(client, { model: "mock-drop-midstream", stream: true }));
  assert.equal(cut?.code, "upstream_error");
  assert(textOf(chunks), "the partial text is kept");
});
