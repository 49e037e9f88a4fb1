// @anthropic-ai/sdk, unmodified, against the running gateway: over a chat model and through to Anthropic's dialect.
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { TOKEN, charges, credits, left, nanos, newKey, read, rejection, requests, url } from "./operator.mjs";

const ASK = [{ role: "user", content: "Tell me something nice." }];
const CALL = [{ role: "user", content: "Please call the tool." }];
const TOOL = {
  name: "get_weather",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const PAID = 6;

const connect = (key) => new Anthropic({ baseURL: url, apiKey: key.secret ?? key });
const spent = (usage) => BigInt(usage.input_tokens + usage.output_tokens) * TOKEN;

for (const model of ["mock", "claude"]) {
  const body = { model, max_tokens: 50, messages: ASK };

  /** A key that can pay for its prompt and PAID tokens of output. */
  async function poor() {
    const counted = await connect(await newKey()).messages.countTokens({ model, messages: ASK });
    return newKey({ credits: credits(BigInt(counted.input_tokens + PAID) * TOKEN) });
  }

  test(`${model}: a message`, async () => {
    const key = await newKey();
    const answer = await connect(key).messages.create(body);
    assert(answer.content[0].text);
    assert.equal(nanos(answer.usage.cost), spent(answer.usage));
    assert.equal(nanos("1") - (await left(key, 1)), nanos(answer.usage.cost));
  });

  test(`${model}: a raw stream and the helper`, async () => {
    const client = connect(await newKey());
    const [events, error] = await read(client.messages.create({ ...body, stream: true }));
    assert.equal(error, undefined);
    assert.deepEqual([events[0].type, events.at(-1).type], ["message_start", "message_stop"]);
    const stream = client.messages.stream(body);
    let text = "";
    stream.on("text", (delta) => (text += delta));
    const final = await stream.finalMessage();
    assert.equal(final.content[0].text, text);
    assert(final.usage.output_tokens > 0);
  });

  test(`${model}: tools, plain and streamed, and a result sent back`, async () => {
    const client = connect(await newKey());
    const asked = { ...body, messages: CALL, tools: [TOOL] };
    const plain = await client.messages.create(asked);
    const streamed = await client.messages.stream(asked).finalMessage();
    for (const answer of [plain, streamed]) {
      assert.equal(answer.stop_reason, "tool_use");
      const [call] = answer.content.filter((block) => block.type === "tool_use");
      assert.equal(call.name, "get_weather");
      assert(call.input.city);
      const result = { type: "tool_result", tool_use_id: call.id, content: "sunny" };
      const more = [...CALL, { role: "assistant", content: answer.content }, { role: "user", content: [result] }];
      assert((await client.messages.create({ ...asked, messages: more })).content[0].text);
    }
  });

  test(`${model}: the 402 before a message is not tried again`, async () => {
    const client = connect(await newKey({}));
    const before = await requests({ status: "402" });
    const error = await rejection(client.messages.create(body), Anthropic.APIError);
    assert.equal(error.status, 402);
    assert.equal(error.error.error.type, "billing_error");
    assert.equal((await requests({ status: "402" })) - before, 1);
  });

  test(`${model}: the 402 in the middle of a raw stream`, async () => {
    const key = await poor();
    const [events, error] = await read(connect(key).messages.create({ ...body, stream: true }));
    assert(error instanceof Anthropic.APIError, `${error}`);
    assert.equal(error.error.error.type, "billing_error");
    assert(events.some((event) => event.type === "content_block_delta"), "the partial text is kept");
    assert(!events.some((event) => event.type === "message_stop"));
    assert.equal(await left(key, 1), 0n);
    assert.equal((await charges(key, 1))[0].end, "credits_exhausted");
  });

  test(`${model}: the 402 in the middle of the helper`, async () => {
    const stream = connect(await poor()).messages.stream(body);
    let text = "";
    stream.on("text", (delta) => (text += delta));
    const error = await rejection(stream.finalMessage(), Anthropic.APIError);
    assert.equal(error.error.error.type, "billing_error");
    assert(text);
  });
}

test("a key that is none, and a model that is none", async () => {
  const body = { max_tokens: 5, messages: ASK };
  await rejection(connect("sk-tw-nobody").messages.create({ ...body, model: "mock" }), Anthropic.AuthenticationError);
  await rejection(connect(await newKey()).messages.create({ ...body, model: "nobody" }), Anthropic.NotFoundError);
});
