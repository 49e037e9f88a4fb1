"""LangChain's ChatOpenAI, unmodified, against the running gateway."""

from decimal import Decimal

import openai
import pytest
from conftest import TOKEN
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

ASK = "Tell me something nice."
PAID = 20


class Answer(BaseModel):
    """What the scripted provider says when it is asked for JSON."""

    answer: str


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str
    days: int


@pytest.fixture
def connect(operator):
    """Makes chat models; retries as LangChain has them, unless told otherwise."""

    def make(key, model="mock", **options):
        return ChatOpenAI(base_url=f"{operator.url}/v1", api_key=getattr(key, "secret", key), model=model, **options)

    return make


@pytest.fixture
def chat(connect, key):
    """A chat model with credits to spare."""
    return connect(key)


@pytest.fixture
def poor(operator, prompt_tokens):
    """A key that can pay for its prompt and PAID tokens of output."""
    messages = [{"role": "user", "content": ASK}]
    return operator.new_key((prompt_tokens(messages, stream=True) + PAID) * TOKEN)


def test_models_are_listed(chat):
    assert "mock" in {model.id for model in chat.root_client.models.list()}


def test_chat(chat, key):
    answer = chat.invoke(ASK)
    assert len(answer.text.split()) > 40
    assert answer.response_metadata["finish_reason"] == "stop"
    usage = answer.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    cost = answer.response_metadata["token_usage"]["cost"]
    assert isinstance(cost, str)
    assert 1 - key.left(charges=1) == Decimal(cost) == usage["total_tokens"] * TOKEN


def test_a_stream_has_the_text_of_the_plain_answer(chat):
    pieces = list(chat.stream(ASK))
    assert len(pieces) > 40
    assert "".join(piece.text for piece in pieces) == chat.invoke(ASK).text


def test_a_stream_reports_usage_when_asked(connect, key):
    whole = None
    for piece in connect(key, stream_usage=True).stream(ASK):
        whole = piece if whole is None else whole + piece
    assert whole.usage_metadata["output_tokens"] > 40
    assert 1 - key.left(charges=1) == whole.usage_metadata["total_tokens"] * TOKEN


def test_a_stream_reports_no_usage_unasked(connect, key):
    assert all(piece.usage_metadata is None for piece in connect(key, stream_usage=False).stream(ASK))


def test_tools(chat):
    (call,) = chat.bind_tools([GetWeather]).invoke("Please call the tool.").tool_calls
    assert (call["name"], call["args"]) == ("GetWeather", {"city": "demo", "days": 1})


def test_streamed_tools_are_put_together(chat):
    whole = None
    for piece in chat.bind_tools([GetWeather]).stream("Please call the tool."):
        whole = piece if whole is None else whole + piece
    (call,) = whole.tool_calls
    assert (call["name"], call["args"]) == ("GetWeather", {"city": "demo", "days": 1})


def test_structured_output(chat):
    assert chat.with_structured_output(Answer).invoke(ASK) == Answer(answer="yes")


def test_headers(connect, key):
    headers = connect(key, include_response_headers=True).invoke(ASK).response_metadata["headers"]
    assert headers["x-request-id"].startswith("req_")
    assert "x-tollway-max-tokens" not in headers


def test_a_limit_that_was_lowered_is_told(connect, poor):
    answer = connect(poor, include_response_headers=True).invoke(ASK)
    most = int(answer.response_metadata["headers"]["x-tollway-max-tokens"])
    assert 1 <= most <= PAID
    assert answer.usage_metadata["output_tokens"] == most
    assert answer.response_metadata["finish_reason"] == "length"


def test_an_unknown_key_is_401(connect):
    with pytest.raises(openai.AuthenticationError) as raised:
        connect("sk-tw-unknown").invoke(ASK)
    assert raised.value.code == "invalid_api_key"


@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_no_credits_is_402_and_not_retried(connect, operator, how):
    chat = connect(operator.new_key(credits=None))
    before = operator.requests(status="402")
    with pytest.raises(openai.APIStatusError) as raised:
        list(getattr(chat, how)(ASK))
    assert (raised.value.status_code, raised.value.code) == (402, "insufficient_quota")
    assert raised.value.body["metadata"]["reason"] == "credits_exhausted"
    assert operator.requests(status="402") - before == 1


def test_402_in_the_middle_of_a_stream(chat, connect, poor, operator):
    whole = chat.invoke(ASK).text
    before = operator.requests(model="mock")
    pieces = []
    with pytest.raises(openai.APIError) as raised:
        for piece in connect(poor, stream_usage=True).stream(ASK):
            pieces.append(piece)
    error = raised.value
    assert error.code == "insufficient_quota"
    assert error.body["metadata"]["reason"] == "credits_exhausted"
    text = "".join(piece.text for piece in pieces)
    assert whole.startswith(text) and 0 < len(text) < len(whole), "the partial text is kept"
    usages = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert [usage["output_tokens"] for usage in usages] == [PAID]
    assert poor.left(charges=1) == 0
    assert operator.requests(model="mock") - before == 1, "LangChain tried again"


def test_an_unknown_model_is_404(connect, key):
    with pytest.raises(openai.NotFoundError) as raised:
        connect(key, model="gpt-nothing").invoke(ASK)
    assert raised.value.code == "model_not_found"


def test_too_fast_is_429(connect, key):
    with pytest.raises(openai.RateLimitError) as raised:
        connect(key, model="mock-429", max_retries=0).invoke(ASK)
    assert raised.value.code == "rate_limit_exceeded"


def test_what_may_be_retried_is_retried_and_counted(connect, key, operator):
    """The other side of "not retried": the same count sees the second attempt."""
    before = operator.requests(model="mock-429", status="429")
    with pytest.raises(openai.RateLimitError):
        connect(key, model="mock-429", max_retries=1).invoke(ASK)
    assert operator.requests(model="mock-429", status="429") - before == 2
