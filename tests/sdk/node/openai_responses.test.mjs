// openai-node's Responses, unmodified, against the running gateway: raw and with the streaming helper.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { TOKEN, charges, left, nanos, newKey, poorKey, read, rejection, url } from "./operator.mjs";

const ASK = "Tell me something nice.";
const PAID = 12;
const TOOL = {
  type: "function",
  name: "get_weather",
  strict: false,
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

const connect = (key) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key.secret });
const ask = (client, more) => client.responses.create({ model: "mock", input: ASK, ...more });

/** A key that can pay for its prompt and PAID tokens of output. */
const poor = () => poorKey({ model: "mock", messages: [{ role: "user", content: ASK }], stream: true }, PAID);

const deltas = (events) =>
  events
    .filter((event) => event.type === "response.output_text.delta")
    .map((event) => event.delta)
    .join("");

test("a response", async () => {
  const key = await newKey();
  const answer = await ask(connect(key));
  assert.equal(answer.status, "completed");
  assert(answer.output_text.split(" ").length > 40);
  assert(answer.completed_at >= answer.created_at);
  assert.equal(nanos(answer.usage.cost), BigInt(answer.usage.total_tokens) * TOKEN);
  assert.equal(nanos("1") - (await left(key, 1)), nanos(answer.usage.cost));
});

test("a raw stream has the text of the plain response", async () => {
  const client = connect(await newKey());
  const plain = await ask(client);
  const [events, error] = await read(ask(client, { stream: true }));
  assert.equal(error, undefined);
  assert.equal(deltas(events), plain.output_text);
  assert.deepEqual([events[0].type, events.at(-1).type], ["response.created", "response.completed"]);
  assert.deepEqual(
    events.map((event) => event.sequence_number),
    events.map((_, place) => place),
  );
});

test("the streaming helper", async () => {
  const stream = connect(await newKey()).responses.stream({ model: "mock", input: ASK });
  let text = "";
  stream.on("response.output_text.delta", (event) => (text += event.delta));
  const final = await stream.finalResponse();
  assert.equal(final.output_text, text);
  assert(final.usage.output_tokens > 40);
});

test("tools, plain and streamed", async () => {
  const client = connect(await newKey());
  const body = { model: "mock", input: "Please call the tool.", tools: [TOOL] };
  for (const answer of [await client.responses.create(body), await client.responses.stream(body).finalResponse()]) {
    const [call] = answer.output.filter((item) => item.type === "function_call");
    assert.equal(call.name, "get_weather");
    assert.deepEqual(JSON.parse(call.arguments), { city: "demo" });
  }
});

test("a call's output is sent back", async () => {
  const client = connect(await newKey());
  const input = [{ role: "user", content: "Please call the tool." }];
  const first = await client.responses.create({ model: "mock", input, tools: [TOOL] });
  const [call] = first.output;
  const output = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
  const second = await client.responses.create({ model: "mock", input: [...input, ...first.output, output], tools: [TOOL] });
  assert(second.output_text.length > 40);
});

test("structured output", async () => {
  const text = { format: zodTextFormat(z.object({ answer: z.string() }), "answer") };
  const answer = await connect(await newKey()).responses.parse({ model: "mock", input: ASK, text });
  assert.deepEqual(answer.output_parsed, { answer: "yes" });
});

test("the 402 before a response", async () => {
  for (const stream of [false, true]) {
    const error = await rejection(ask(connect(await newKey({})), { stream }), OpenAI.APIError);
    assert.deepEqual([error.status, error.code], [402, "insufficient_quota"]);
  }
});

test("the 402 in the middle of a raw stream", async () => {
  const key = await poor();
  const [events, error] = await read(ask(connect(key), { stream: true }));
  assert(error instanceof OpenAI.APIError, `${error}`);
  assert.equal(error.code, "insufficient_quota");
  const [failed] = events.filter((event) => event.type === "response.failed");
  assert.equal(failed.response.error.code, "insufficient_quota");
  assert.equal(failed.response.usage.output_tokens, PAID);
  assert.equal(failed.response.output[0].content[0].text, deltas(events));
  assert.equal(await left(key, 1), 0n);
  assert.equal((await charges(key, 1))[0].end, "credits_exhausted");
});

test("the 402 in the middle of the helper", async () => {
  const key = await poor();
  const stream = connect(key).responses.stream({ model: "mock", input: ASK });
  let text = "";
  stream.on("response.output_text.delta", (event) => (text += event.delta));
  const error = await rejection(stream.finalResponse(), OpenAI.APIError);
  assert.equal(error.code, "insufficient_quota");
  assert(text, "the partial text is kept");
  assert.equal(await left(key, 1), 0n);
});
