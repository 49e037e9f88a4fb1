// The Vercel AI SDK, unmodified, against the running gateway: OpenAI's chat and Responses, and Anthropic's Messages.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, generateText, jsonSchema, Output, streamText, tool } from "ai";
import { charges, left, newKey, poorKey, requests, url } from "./operator.mjs";

const ASK = "Tell me something nice.";
const PAID = 8;
const messages = [{ role: "user", content: ASK }];
const TOOLS = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: jsonSchema({
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      additionalProperties: false,
    }),
  }),
};

const openai = (key) => createOpenAI({ baseURL: `${url}/v1`, apiKey: key.secret });
const anthropic = (key) => createAnthropic({ baseURL: `${url}/v1`, apiKey: key.secret });
const WAYS = {
  "chat": (key) => openai(key).chat("mock"),
  "responses": (key) => openai(key).responses("mock"),
  "messages over a chat model": (key) => anthropic(key)("mock"),
  "messages": (key) => anthropic(key)("claude"),
};

/** Reads a stream's parts to the end; gives its text, its calls and what went wrong. */
async function parts(result) {
  let text = "";
  const calls = [];
  const errors = [];
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") text += part.text;
    if (part.type === "tool-call") calls.push(part);
    if (part.type === "error") errors.push(part.error);
  }
  return { text, calls, errors };
}

/** The body of an error, wherever the SDK keeps it. */
const words = (error) => JSON.stringify([error, error?.message, error?.responseBody, error?.data, error?.cause]);

for (const [name, model] of Object.entries(WAYS)) {
  test(`${name}: a text`, async () => {
    const key = await newKey();
    const answer = await generateText({ model: model(key), prompt: ASK, maxOutputTokens: 60 });
    assert(answer.text.length > 20);
    assert(answer.usage.outputTokens > 0);
    await charges(key, 1);
  });

  test(`${name}: a stream`, async () => {
    const key = await newKey();
    const { text, errors } = await parts(streamText({ model: model(key), prompt: ASK, maxOutputTokens: 60 }));
    assert.deepEqual(errors, []);
    assert(text.length > 20);
  });

  test(`${name}: tools, plain and streamed`, async () => {
    const asked = { model: model(await newKey()), prompt: "Please call the tool.", tools: TOOLS, maxOutputTokens: 60 };
    const { toolCalls } = await generateText(asked);
    const { calls, errors } = await parts(streamText(asked));
    assert.deepEqual(errors, []);
    for (const [call] of [toolCalls, calls]) {
      assert.equal(call.toolName, "get_weather");
      assert(call.input.city);
    }
  });

  test(`${name}: an object`, async () => {
    const schema = jsonSchema({
      type: "object",
      properties: { status: { type: "string", enum: ["ok"] } },
      required: ["status"],
      additionalProperties: false,
    });
    const asked = { model: model(await newKey()), prompt: ASK, output: Output.object({ schema }), maxOutputTokens: 60 };
    assert.deepEqual((await generateText(asked)).output, { status: "ok" });
  });

  test(`${name}: no credits is a final 402`, async () => {
    const before = await requests({ status: "402" });
    const error = await generateText({ model: model(await newKey({})), prompt: ASK, maxOutputTokens: 60 }).then(
      () => assert.fail("nothing was thrown"),
      (error) => error,
    );
    assert(APICallError.isInstance(error), `${error}`);
    assert.deepEqual([error.statusCode, error.isRetryable], [402, false]);
    assert.equal((await requests({ status: "402" })) - before, 1, "it was tried again");
  });

  test(`${name}: 402 in the middle of a stream`, async () => {
    const asked = name === "messages" ? "claude" : "mock";
    const key = await poorKey({ model: asked, messages, stream: true }, PAID);
    const before = await requests({ model: asked });
    // Silent: the SDK prints what a stream ends with unless somebody takes it.
    const result = streamText({ model: model(key), prompt: ASK, maxOutputTokens: 60, onError: () => {} });
    const { text, errors } = await parts(result);
    assert(text, "the partial text is kept");
    // Of a response there are two: it has failed, and the stream has.
    assert(errors.length > 0, "it ended without an error");
    for (const error of errors) assert.match(words(error), /insufficient_quota|billing_error/);
    assert.equal(await left(key, 1), 0n);
    assert.equal((await charges(key, 1))[0].end, "credits_exhausted");
    assert.equal((await requests({ model: asked })) - before, 1, "it was tried again");
  });
}
