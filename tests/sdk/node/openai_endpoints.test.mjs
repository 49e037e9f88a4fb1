// openai-node, unmodified, on the endpoints beside chat: completions, embeddings, moderations, images, audio.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { toFile } from "openai";
import { TOKEN, credits, left, nanos, newKey, read, rejection, requests, url } from "./operator.mjs";

const SECONDS = 3;
const connect = (key) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key.secret });

/** Silence, as a WAV file of 16 bits at 8 kHz. */
function recording() {
  const file = Buffer.alloc(44 + 16_000 * SECONDS);
  file.write("RIFF", 0);
  file.writeUInt32LE(file.length - 8, 4);
  file.write("WAVEfmt ", 8);
  file.writeUInt32LE(16, 16);
  file.writeUInt16LE(1, 20);
  file.writeUInt16LE(1, 22);
  file.writeUInt32LE(8_000, 24);
  file.writeUInt32LE(16_000, 28);
  file.writeUInt16LE(2, 32);
  file.writeUInt16LE(16, 34);
  file.write("data", 36);
  file.writeUInt32LE(file.length - 44, 40);
  return toFile(file, "silence.wav");
}

test("a completion, its stream, and the 402 in its middle", async () => {
  const key = await newKey();
  const body = { model: "mock-text", prompt: "one two", max_tokens: 5 };
  const plain = await connect(key).completions.create(body);
  assert.equal(nanos(plain.usage.cost), 7n * TOKEN);
  const [chunks, error] = await read(connect(key).completions.create({ ...body, stream: true }));
  assert.equal(error, undefined);
  const text = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.text)).join("");
  assert.equal(text, plain.choices[0].text);
  assert.equal(nanos("1") - (await left(key, 2)), 14n * TOKEN);
  const poor = await newKey({ credits: credits(12n * TOKEN) });
  const [said, cut] = await read(connect(poor).completions.create({ model: "mock-text", prompt: "one two", stream: true }));
  assert(cut instanceof OpenAI.APIError && said.length > 0, `${cut}`);
  assert.equal(cut.code, "insufficient_quota");
  assert.equal(await left(poor, 1), 0n);
});

test("embeddings as numbers and as bytes", async () => {
  const key = await newKey();
  // The SDK asks for base64 by itself and decodes it.
  const one = await connect(key).embeddings.create({ model: "mock-embed", input: "one two three" });
  assert.equal(one.data[0].embedding.length, 8);
  assert.equal(nanos(one.usage.cost), 3n * TOKEN);
  const many = { model: "mock-embed", input: ["one", "two"], dimensions: 4, encoding_format: "float" };
  const two = await connect(key).embeddings.create(many);
  assert.deepEqual(two.data.map((each) => each.embedding.length), [4, 4]);
  assert.equal(nanos("1") - (await left(key, 2)), 5n * TOKEN);
});

test("moderations", async () => {
  const answer = await connect(await newKey()).moderations.create({ model: "mock-moderate", input: "fine" });
  assert.equal(answer.results[0].flagged, false);
});

test("images, edits and a stream of them", async () => {
  const key = await newKey();
  const client = connect(key);
  const made = await client.images.generate({ model: "mock-image", prompt: "a cat", n: 2 });
  const png = Buffer.from(made.data[1].b64_json, "base64");
  assert.equal(png.subarray(1, 4).toString(), "PNG");
  const image = await toFile(png, "cat.png", { type: "image/png" });
  const edited = await client.images.edit({ model: "mock-edit", image, prompt: "with a hat" });
  assert.equal(edited.data.length, 1);
  assert.equal(nanos("1") - (await left(key, 2)), nanos("0.12"));
  const body = { model: "mock-image", prompt: "a cat", stream: true, partial_images: 1 };
  const [events, error] = await read(client.images.generate(body));
  assert.equal(error, undefined);
  assert.deepEqual(events.map((event) => event.type), ["image_generation.partial_image", "image_generation.completed"]);
});

test("speech", async () => {
  const client = connect(await newKey());
  const spoken = await client.audio.speech.create({ model: "mock-speech", voice: "alloy", input: "hello" });
  assert.equal(nanos(spoken.headers.get("x-tollway-cost")), 75n * TOKEN);
  assert((await spoken.arrayBuffer()).byteLength > 0);
});

test("transcriptions, plain and streamed, and translations", async () => {
  const key = await newKey();
  const client = connect(key);
  const heard = await client.audio.transcriptions.create({ model: "mock-hear", file: await recording() });
  assert.equal(heard.text, "All is well");
  const body = { model: "mock-hear", file: await recording(), stream: true };
  const [events, error] = await read(client.audio.transcriptions.create(body));
  assert.equal(error, undefined);
  assert.equal(events.at(-1).type, "transcript.text.done");
  const english = await client.audio.translations.create({ model: "mock-translate", file: await recording() });
  assert.equal(english.text, "All is well");
  assert((await left(key, 3)) < nanos("1"));
});

const ASKS = {
  completions: (client) => client.completions.create({ model: "mock-text", prompt: "a" }),
  embeddings: (client) => client.embeddings.create({ model: "mock-embed", input: "a" }),
  images: (client) => client.images.generate({ model: "mock-image", prompt: "a" }),
  speech: (client) => client.audio.speech.create({ model: "mock-speech", voice: "alloy", input: "a" }),
  transcriptions: async (client) => client.audio.transcriptions.create({ model: "mock-hear", file: await recording() }),
};
for (const [name, ask] of Object.entries(ASKS)) {
  test(`without credits ${name} are refused once`, async () => {
    const client = connect(await newKey({}));
    const before = await requests({ status: "402" });
    const error = await rejection(ask(client), OpenAI.APIError);
    assert.deepEqual([error.status, error.code], [402, "insufficient_quota"]);
    assert.equal((await requests({ status: "402" })) - before, 1, "it was tried again");
  });
}
