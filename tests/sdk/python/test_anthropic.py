"""anthropic-python, unmodified, against the running gateway: over a chat model and through to Anthropic's dialect."""

from decimal import Decimal

import anthropic
import pytest
from conftest import TOKEN

ASK = [{"role": "user", "content": "Tell me something nice."}]
PAID = 6
MODELS = ("mock", "claude")


@pytest.fixture
def connect(operator):
    """Makes clients; retries as the SDK has them."""

    def make(key, **options):
        return anthropic.Anthropic(base_url=operator.url, api_key=getattr(key, "secret", key), **options)

    return make


@pytest.fixture
def client(connect, key):
    """A client with credits to spare."""
    return connect(key)


@pytest.mark.parametrize("model", MODELS)
def test_a_message(client, key, model):
    answer = client.messages.create(model=model, max_tokens=50, messages=ASK)
    assert answer.type == "message"
    assert answer.content[0].text
    usage = answer.usage
    assert Decimal(usage.cost) == (usage.input_tokens + usage.output_tokens) * TOKEN
    assert 1 - key.left(charges=1) == Decimal(usage.cost)


@pytest.mark.parametrize("model", MODELS)
def test_the_streaming_helper(client, key, model):
    with client.messages.stream(model=model, max_tokens=50, messages=ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text and final.content[0].text == text
    assert final.stop_reason in ("end_turn", "max_tokens")
    spent = (final.usage.input_tokens + final.usage.output_tokens) * TOKEN
    assert 1 - key.left(charges=1) == spent


@pytest.mark.parametrize("model", MODELS)
def test_tokens_are_counted(client, model):
    assert client.messages.count_tokens(model=model, messages=ASK).input_tokens > 5


@pytest.mark.parametrize("model", MODELS)
def test_a_tool_is_called(client, model):
    tools = [{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
    ask = [{"role": "user", "content": [{"type": "text", "text": "Please call the tool."}]}]
    with client.messages.stream(model=model, max_tokens=50, messages=ask, tools=tools) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    (call,) = [block for block in final.content if block.type == "tool_use"]
    assert call.name == "get_weather" and call.input["city"]


@pytest.mark.parametrize("model", MODELS)
def test_the_402_before_a_message(operator, connect, model):
    poor = operator.new_key(None)
    with pytest.raises(anthropic.APIStatusError) as raised:
        connect(poor).messages.create(model=model, max_tokens=50, messages=ASK)
    assert raised.value.status_code == 402
    assert raised.value.body["error"]["type"] == "billing_error"


@pytest.mark.parametrize("model", MODELS)
def test_the_402_in_the_middle_of_a_stream(operator, connect, client, model):
    prompt = client.messages.count_tokens(model=model, messages=ASK).input_tokens
    poor = operator.new_key((prompt + PAID) * TOKEN)
    said, usages = [], []
    with pytest.raises(anthropic.APIStatusError) as raised:
        for event in connect(poor).messages.create(model=model, max_tokens=50, messages=ASK, stream=True):
            if event.type == "content_block_delta":
                said.append(event.delta.text)
            if event.type == "message_delta":
                usages.append(event.usage)
    assert "".join(said), "the partial text is kept"
    assert raised.value.body["error"]["type"] == "billing_error"
    assert raised.value.body["error"]["metadata"]["reason"] == "credits_exhausted"
    (usage,) = usages
    # The provider may count the prompt as less than the gateway does: what is left buys output.
    assert usage.input_tokens + usage.output_tokens == prompt + PAID
    assert poor.left(charges=1) == 0


def test_a_key_that_is_none(connect):
    with pytest.raises(anthropic.AuthenticationError):
        connect("sk-tw-nobody").messages.create(model="mock", max_tokens=5, messages=ASK)


def test_a_model_that_is_none(client):
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nobody", max_tokens=5, messages=ASK)
