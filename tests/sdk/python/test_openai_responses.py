"""openai-python's Responses, unmodified, against the running gateway: raw and with the streaming helper."""

from decimal import Decimal

import openai
import pytest
from conftest import TOKEN

ASK = "Tell me something nice."
PAID = 12


# Composed out of chats, and as a provider that has Responses sends them.
MODELS = pytest.mark.parametrize("model", ["mock", "mock-native"])


@pytest.fixture
def connect(operator):
    """Makes clients; retries as the SDK has them."""

    def make(key):
        return openai.OpenAI(base_url=f"{operator.url}/v1", api_key=key.secret)

    return make


@pytest.fixture
def client(connect, key):
    """A client with credits to spare."""
    return connect(key)


@pytest.fixture
def poor(operator, connect, prompt_tokens):
    """A key that can pay for its prompt and PAID tokens of output, and a client with it."""
    messages = [{"role": "user", "content": ASK}]
    key = operator.new_key((prompt_tokens(messages, stream=True) + PAID) * TOKEN)
    return key, connect(key)


@MODELS
def test_a_response(model, client, key):
    answer = client.responses.create(model=model, input=ASK)
    assert answer.status == "completed"
    assert len(answer.output_text.split()) > 20
    assert Decimal(answer.usage.cost) == answer.usage.total_tokens * TOKEN
    assert 1 - key.left(charges=1) == Decimal(answer.usage.cost)


@MODELS
def test_a_raw_stream(model, client):
    events = list(client.responses.create(model=model, input=ASK, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == text
    assert [event.sequence_number for event in events] == list(range(len(events)))


@MODELS
def test_the_streaming_helper(model, client):
    with client.responses.stream(model=model, input=ASK) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.output_text == text
    assert final.usage.output_tokens > 20


@MODELS
def test_a_tool_is_called(model, client):
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}
    answer = client.responses.create(model=model, input="Please call the tool.", tools=[tool])
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert call.name == "get_weather" and "city" in call.arguments


@MODELS
def test_the_402_before_a_response(model, operator, connect):
    with pytest.raises(openai.APIStatusError) as raised:
        connect(operator.new_key(None)).responses.create(model=model, input=ASK)
    assert raised.value.status_code == 402
    assert raised.value.code == "insufficient_quota"


@MODELS
def test_the_402_in_the_middle_of_a_raw_stream(model, poor):
    key, client = poor
    said, failed = [], []
    with pytest.raises(openai.APIError) as raised:
        for event in client.responses.create(model=model, input=ASK, stream=True):
            if event.type == "response.output_text.delta":
                said.append(event.delta)
            if event.type == "response.failed":
                failed.append(event.response)
    assert raised.value.code == "insufficient_quota"
    (response,) = failed
    assert response.error.code == "insufficient_quota"
    assert response.usage.output_tokens == PAID
    assert response.output[0].content[0].text == "".join(said)
    assert key.left(charges=1) == 0


@MODELS
def test_the_402_in_the_middle_of_the_helper(model, poor):
    key, client = poor
    said = []
    with pytest.raises(openai.APIError) as raised:
        with client.responses.stream(model=model, input=ASK) as stream:
            said.extend(event.delta for event in stream if event.type == "response.output_text.delta")
    assert raised.value.code == "insufficient_quota"
    assert key.left(charges=1) == 0


@MODELS
def test_a_response_is_kept_for_its_key(operator, connect, client, model):
    first = client.responses.create(model=model, input=ASK)
    assert first.store
    assert client.responses.retrieve(first.id).output_text == first.output_text
    (item,) = client.responses.input_items.list(first.id)
    assert item.content[0].text == ASK
    second = client.responses.create(model=model, input="Go on.", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    # What was answered is part of the prompt.
    assert second.usage.input_tokens > first.usage.output_tokens
    stranger = connect(operator.new_key())
    for refused in (stranger.responses.retrieve, stranger.responses.delete, stranger.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            refused(first.id)
    with pytest.raises(openai.BadRequestError) as raised:
        stranger.responses.create(model=model, input="Go on.", previous_response_id=first.id)
    assert raised.value.param == "previous_response_id"
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


@MODELS
def test_a_streamed_response_is_kept(client, model):
    with client.responses.stream(model=model, input=ASK) as stream:
        final = stream.get_final_response()
    assert client.responses.retrieve(final.id).output_text == final.output_text


@MODELS
def test_a_response_that_shall_not_be_kept_is_not(client, model):
    answer = client.responses.create(model=model, input=ASK, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)
