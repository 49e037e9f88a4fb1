"""openai-python, unmodified, on the endpoints beside chat: completions, embeddings, moderations, images, audio, files, batches."""

import base64
import io
import json
import struct
from decimal import Decimal

import openai
import pytest
from conftest import TOKEN

SECONDS = 3


@pytest.fixture
def connect(operator):
    """Makes clients."""

    def make(key):
        return openai.OpenAI(base_url=f"{operator.url}/v1", api_key=key.secret)

    return make


@pytest.fixture
def client(connect, key):
    """A client with credits to spare."""
    return connect(key)


@pytest.fixture
def poor(operator, connect):
    """A client without credits."""
    return connect(operator.new_key(credits=None))


def recording():
    """Silence, as a WAV file of 16 bits at 8 kHz."""
    size = 16_000 * SECONDS
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, 8_000, 16_000, 2, 16, b"data", size)
    file = io.BytesIO(head + bytes(size))
    file.name = "silence.wav"
    return file


def cost_of(answer):
    """What an answer says it cost."""
    usage = answer.usage
    return Decimal(usage["cost"] if isinstance(usage, dict) else usage.cost)


def test_a_completion_and_its_stream(client, key):
    plain = client.completions.create(model="mock-text", prompt="one two", max_tokens=5)
    assert plain.usage.completion_tokens == 5
    assert cost_of(plain) == 7 * TOKEN
    stream = client.completions.create(model="mock-text", prompt="one two", max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == plain.choices[0].text
    assert 1 - key.left(charges=2) == 14 * TOKEN


def test_a_completion_stream_is_cut_when_credit_runs_out(operator, connect):
    key = operator.new_key(12 * TOKEN)
    chunks = []
    with pytest.raises(openai.APIError) as raised:
        for chunk in connect(key).completions.create(model="mock-text", prompt="one two", stream=True):
            chunks.append(chunk)
    assert raised.value.code == "insufficient_quota"
    assert chunks and key.left(charges=1) == 0


def test_embeddings_as_numbers_and_as_bytes(client, key):
    # The SDK asks for base64 by itself and decodes it.
    one = client.embeddings.create(model="mock-embed", input="one two three")
    assert len(one.data[0].embedding) == 8 and isinstance(one.data[0].embedding[0], float)
    assert cost_of(one) == 3 * TOKEN
    many = client.embeddings.create(model="mock-embed", input=["one", "two"], dimensions=4, encoding_format="float")
    assert [len(each.embedding) for each in many.data] == [4, 4]
    tokens = client.embeddings.create(model="mock-embed", input=[[1, 2], [3]])
    assert len(tokens.data) == 2
    assert 1 - key.left(charges=3) == (3 + 2 + 3) * TOKEN


def test_moderations(client):
    answer = client.moderations.create(model="mock-moderate", input="fine")
    assert answer.results[0].flagged is False


def test_images_and_edits(client, key):
    made = client.images.generate(model="mock-image", prompt="a cat", n=2)
    assert base64.b64decode(made.data[1].b64_json).startswith(b"\x89PNG")
    picture = io.BytesIO(b"\x89PNG")
    picture.name = "cat.png"
    edited = client.images.edit(model="mock-edit", image=picture, prompt="with a hat")
    assert len(edited.data) == 1
    assert 1 - key.left(charges=2) == Decimal("0.12")


def test_images_stream(client):
    events = list(client.images.generate(model="mock-image", prompt="a cat", stream=True, partial_images=1))
    assert [event.type for event in events] == ["image_generation.partial_image", "image_generation.completed"]


def test_speech_by_characters_and_by_tokens(client):
    by_characters = client.audio.speech.create(model="mock-speech", voice="alloy", input="hello")
    assert Decimal(by_characters.response.headers["x-tollway-cost"]) == 5 * 15 * TOKEN
    by_tokens = client.audio.speech.create(model="mock-speech-tokens", voice="alloy", input="hello")
    assert by_tokens.content == by_characters.content


def test_transcriptions_and_translations(client, key):
    heard = client.audio.transcriptions.create(model="mock-hear", file=recording())
    assert heard.text == "All is well"
    text = client.audio.transcriptions.create(model="mock-hear", file=recording(), response_format="text")
    assert text.strip().strip('"') == "All is well"
    assert client.audio.translations.create(model="mock-translate", file=recording()).text == "All is well"
    # Two answers say two seconds; the text says nothing, and the file is three.
    assert 1 - key.left(charges=3) == Decimal("0.0001") * (2 + SECONDS + 2)


def test_a_transcription_streams(client):
    events = list(client.audio.transcriptions.create(model="mock-hear", file=recording(), stream=True))
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == "All is well"
    assert events[-1].type == "transcript.text.done"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.completions.create(model="mock-text", prompt="a"),
        lambda client: client.embeddings.create(model="mock-embed", input="a"),
        lambda client: client.moderations.create(model="mock-moderate", input="a"),
        lambda client: client.images.generate(model="mock-image", prompt="a"),
        lambda client: client.audio.speech.create(model="mock-speech", voice="alloy", input="a"),
        lambda client: client.audio.transcriptions.create(model="mock-hear", file=recording()),
    ],
)
def test_a_client_without_credits_is_refused_once(operator, poor, ask):
    before = operator.requests(status="402")
    with pytest.raises(openai.APIStatusError) as raised:
        ask(poor)
    assert (raised.value.status_code, raised.value.code) == (402, "insufficient_quota")
    assert operator.requests(status="402") == before + 1, "it was tried again"


def test_a_file_and_a_batch(client, poor, key):
    body = {"model": "mock", "messages": [{"role": "user", "content": "one two"}], "max_tokens": 5}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = client.files.create(file=("requests.jsonl", json.dumps(line).encode()), purpose="batch")
    assert [one.id for one in client.files.list()] == [file.id]
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    batch = client.batches.retrieve(batch.id)
    assert [one.status for one in client.batches.list()] == ["completed"]
    results = client.files.content(batch.output_file_id).text
    usage = json.loads(results)["response"]["body"]["usage"]
    assert 1 - key.left(charges=1) == usage["total_tokens"] * TOKEN
    assert client.files.content(batch.output_file_id).text == results
    assert 1 - key.left(charges=1) == usage["total_tokens"] * TOKEN
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    with pytest.raises(openai.APIStatusError) as refused:
        poor.files.list()
    assert refused.value.status_code == 402
