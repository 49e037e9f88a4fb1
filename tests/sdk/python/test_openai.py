"""openai-python, unmodified, against the running gateway; the same cases for every major version."""

import asyncio
import json
from decimal import Decimal

import openai
import pytest
from conftest import TOKEN
from pydantic import BaseModel

ASK = [{"role": "user", "content": "Tell me something nice."}]
CALL = [{"role": "user", "content": "Please call the tool."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}
PAID = 20


class Answer(BaseModel):
    """What the scripted provider says when it is asked for JSON."""

    answer: str


@pytest.fixture
def connect(operator):
    """Makes clients; retries as the SDK has them, unless told otherwise."""

    def make(key, kind=openai.OpenAI, **options):
        return kind(base_url=f"{operator.url}/v1", api_key=getattr(key, "secret", key), **options)

    return make


@pytest.fixture
def client(connect, key):
    """A client with credits to spare."""
    return connect(key)


@pytest.fixture
def poor(operator, connect, prompt_tokens):
    """A key that can pay for its prompt and PAID tokens of output, and a client with it."""
    key = operator.new_key((prompt_tokens(ASK, stream=True) + PAID) * TOKEN)
    return key, connect(key)


def text_of(chunks):
    """The text of a stream's chunks."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def read(stream, chunks):
    """Reads a stream into `chunks`, which keeps what came when it raises."""
    for chunk in stream:
        chunks.append(chunk)


# --- What works ---------------------------------------------------------------------------------


def test_models_are_listed(client):
    models = {model.id: model for model in client.models.list()}
    assert models["mock"].owned_by == "scripted"
    assert client.models.retrieve("mock").id == "mock"


def test_a_model_with_a_slash_is_found(client):
    assert client.models.retrieve("scripted/mock").id == "scripted/mock"


def test_chat(client, key):
    answer = client.chat.completions.create(model="mock", messages=ASK)
    assert answer.choices[0].finish_reason == "stop"
    assert len(answer.choices[0].message.content.split()) > 40
    usage = answer.usage
    assert isinstance(usage.cost, str)
    assert Decimal(usage.cost) == (usage.prompt_tokens + usage.completion_tokens) * TOKEN
    assert 1 - key.left(charges=1) == Decimal(usage.cost)


def test_a_stream_has_the_text_of_the_plain_answer(client):
    plain = client.chat.completions.create(model="mock", messages=ASK)
    chunks = list(client.chat.completions.create(model="mock", messages=ASK, stream=True))
    assert text_of(chunks) == plain.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks), "usage came, though nobody asked"


def test_a_stream_reports_usage_when_asked(client, key):
    chunks = list(
        client.chat.completions.create(
            model="mock", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    last = chunks[-1]
    assert last.choices == []
    assert last.usage.completion_tokens > 40
    assert isinstance(last.usage.cost, str)
    assert 1 - key.left(charges=1) == Decimal(last.usage.cost)


def test_the_streaming_helper(client):
    with client.chat.completions.stream(model="mock", messages=ASK, stream_options={"include_usage": True}) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta" and event.delta]
        final = stream.get_final_completion()
    assert "".join(pieces) == final.choices[0].message.content
    assert final.usage.completion_tokens == len(pieces)


def test_many_choices(client):
    answer = client.chat.completions.create(model="mock", messages=ASK, n=3, max_tokens=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.completion_tokens == 15


def test_tools(client):
    answer = client.chat.completions.create(model="mock", messages=CALL, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "demo", "days": 1}


def test_streamed_tools_are_put_together(client):
    stream = client.chat.completions.create(model="mock", messages=CALL, tools=[WEATHER], stream=True)
    name, arguments, pieces = "", "", 0
    for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
            pieces += 1
    assert pieces > 2
    assert name == "get_weather"
    assert json.loads(arguments) == {"city": "demo", "days": 1}


def test_the_answer_to_a_tool_is_taken(client):
    called = client.chat.completions.create(model="mock", messages=CALL, tools=[WEATHER]).choices[0].message
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "sunny"}
    answer = client.chat.completions.create(model="mock", messages=[*CALL, called, result], tools=[WEATHER])
    assert answer.choices[0].message.content


def test_structured_output(client):
    answer = client.chat.completions.parse(model="mock", messages=ASK, response_format=Answer)
    assert answer.choices[0].message.parsed == Answer(answer="yes")


def test_streamed_structured_output(client):
    with client.chat.completions.stream(model="mock", messages=ASK, response_format=Answer) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Answer(answer="yes")


def test_a_model_behind_anthropics_dialect(client, key):
    answer = client.chat.completions.create(model="claude", messages=ASK)
    assert answer.object == "chat.completion"
    assert answer.choices[0].finish_reason == "stop"
    assert len(answer.choices[0].message.content.split()) > 10
    usage = answer.usage
    assert Decimal(usage.cost) == (usage.prompt_tokens + usage.completion_tokens) * TOKEN
    with client.chat.completions.stream(model="claude", messages=ASK, stream_options={"include_usage": True}) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == answer.choices[0].message.content
    assert final.usage.completion_tokens == usage.completion_tokens
    assert 1 - key.left(charges=2) == Decimal(usage.cost) + Decimal(final.usage.cost)


def test_tools_behind_anthropics_dialect(client):
    plain = client.chat.completions.create(model="claude", messages=CALL, tools=[WEATHER])
    with client.chat.completions.stream(model="claude", messages=CALL, tools=[WEATHER]) as stream:
        streamed = stream.get_final_completion()
    for answer in (plain, streamed):
        assert answer.choices[0].finish_reason == "tool_calls"
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "Bern", "days": 3}
    called = streamed.choices[0].message
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "sunny"}
    said = called.model_dump(exclude_none=True, exclude={"parsed"})
    answer = client.chat.completions.create(model="claude", messages=[*CALL, said, result], tools=[WEATHER])
    assert answer.choices[0].message.content


def test_what_anthropics_dialect_cannot_say_is_named(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="claude", messages=ASK, seed=7)
    assert (raised.value.code, raised.value.param) == ("invalid_request", "seed")


def test_raw_responses_have_the_headers(client):
    raw = client.chat.completions.with_raw_response.create(model="mock", messages=ASK)
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.request_id == raw.headers["x-request-id"]
    assert "x-tollway-max-tokens" not in raw.headers
    assert raw.parse().choices[0].message.content


def test_the_request_id_finds_the_charge(client, key):
    answer = client.chat.completions.create(model="mock", messages=ASK)
    key.charges(1)
    record = client.get(f"/generation?id={answer._request_id}", cast_to=object)
    assert Decimal(record["cost"]) == Decimal(answer.usage.cost)


def test_a_limit_that_was_lowered_is_told(poor):
    key, client = poor
    raw = client.chat.completions.with_raw_response.create(model="mock", messages=ASK)
    most = int(raw.headers["x-tollway-max-tokens"])
    answer = raw.parse()
    assert 1 <= most <= PAID
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == most
    assert key.left(charges=1) >= 0


def test_the_asynchronous_client(connect, key):
    async def stream():
        async with connect(key, openai.AsyncOpenAI) as client:
            chunks = await client.chat.completions.create(model="mock", messages=ASK, stream=True)
            return [chunk async for chunk in chunks]

    chunks = asyncio.run(stream())
    assert len(text_of(chunks).split()) > 40


# --- What raises --------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["sk-tw-unknown", "not a key of ours"])
def test_an_unknown_key_is_401(connect, secret):
    with pytest.raises(openai.AuthenticationError) as raised:
        connect(secret).chat.completions.create(model="mock", messages=ASK)
    assert raised.value.status_code == 401
    assert raised.value.code == "invalid_api_key"
    assert secret not in str(raised.value)


def test_a_revoked_key_is_401(connect, operator):
    key = operator.new_key()
    client = connect(key)
    assert client.chat.completions.create(model="mock", messages=ASK)
    operator.call("DELETE", f"/keys/{key.id}")
    with pytest.raises(openai.AuthenticationError):
        for _ in range(200):
            client.chat.completions.create(model="mock", messages=ASK, max_tokens=1)


def test_no_credits_is_402_and_not_retried(connect, operator):
    client = connect(operator.new_key(credits=None))
    before = operator.requests(status="402")
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model="mock", messages=ASK)
    error = raised.value
    assert (error.status_code, error.code, error.type) == (402, "insufficient_quota", "insufficient_quota")
    assert error.response.headers["x-should-retry"] == "false"
    metadata = error.body["metadata"]
    assert metadata["reason"] == "credits_exhausted"
    assert metadata["scope"] == "account"
    assert Decimal(metadata["available"]) == 0
    assert Decimal(metadata["held"]) == 0
    assert Decimal(metadata["required"]) > 0
    assert metadata["affordable_tokens"] == 0
    assert metadata["top_up_url"] == "https://pay.example/top-up"
    assert metadata["request_id"] == error.request_id
    assert "https://pay.example/top-up" in error.message
    assert operator.requests(status="402") - before == 1


def test_no_credits_is_402_for_a_stream_too(connect, operator):
    client = connect(operator.new_key(credits=None))
    before = operator.requests(status="402")
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model="mock", messages=ASK, stream=True)
    assert raised.value.status_code == 402
    assert operator.requests(status="402") - before == 1


def test_a_used_up_limit_is_402_of_the_key(connect, operator):
    client = connect(operator.new_key(credits="1", limit="0.000002"))
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model="mock", messages=ASK)
    assert raised.value.status_code == 402
    metadata = raised.value.body["metadata"]
    assert (metadata["reason"], metadata["scope"]) == ("key_limit_reached", "key")


def test_without_credits_models_and_balance_can_be_read(connect, operator):
    client = connect(operator.new_key(credits=None))
    assert any(model.id == "mock" for model in client.models.list())
    assert client.get("/credits", cast_to=object)["remaining"] == "0"


def whole_answer(client):
    """What the answer is when nothing ends it."""
    return client.chat.completions.create(model="mock", messages=ASK).choices[0].message.content


def test_402_in_the_middle_of_a_stream(client, poor, operator):
    whole = whole_answer(client)
    key, poor_client = poor
    before = operator.requests(model="mock")
    stream = poor_client.chat.completions.create(
        model="mock", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = []
    with pytest.raises(openai.APIError) as raised:
        read(stream, chunks)
    error = raised.value
    assert (error.code, error.type) == ("insufficient_quota", "insufficient_quota")
    assert error.body["status"] == 402
    assert error.body["metadata"]["reason"] == "credits_exhausted"
    assert "top-up" in error.message
    text = text_of(chunks)
    assert whole.startswith(text) and 0 < len(text) < len(whole), "the partial text is kept"
    assert all(choice.finish_reason is None for chunk in chunks for choice in chunk.choices)
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert [usage.completion_tokens for usage in usages] == [PAID]
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert error.body["usage"]["completion_tokens"] == PAID
    assert key.left(charges=1) == 0, "all that was paid in is used, and not a bit more"
    assert operator.requests(model="mock") - before == 1, "the SDK tried again"
    (charge,) = key.charges(1)
    assert charge["end"] == "credits_exhausted"
    assert Decimal(usages[0].cost) == Decimal(charge["charged"])


def test_402_in_the_middle_behind_anthropics_dialect(connect, operator, prompt_tokens):
    key = operator.new_key((prompt_tokens(ASK, model="claude", stream=True) + 3) * TOKEN)
    chunks = []
    with pytest.raises(openai.APIError) as raised:
        read(connect(key).chat.completions.create(model="claude", messages=ASK, stream=True), chunks)
    assert raised.value.code == "insufficient_quota"
    assert text_of(chunks)
    assert all(choice.finish_reason is None for chunk in chunks for choice in chunk.choices)
    assert key.left(charges=1) == 0


def test_402_in_the_middle_without_usage_asked(poor):
    _, client = poor
    chunks = []
    with pytest.raises(openai.APIError) as raised:
        read(client.chat.completions.create(model="mock", messages=ASK, stream=True), chunks)
    assert raised.value.code == "insufficient_quota"
    assert text_of(chunks)
    assert all(chunk.usage is None for chunk in chunks)


def test_402_in_the_middle_with_the_streaming_helper(poor):
    _, client = poor
    text = ""
    with pytest.raises(openai.APIError) as raised:
        with client.chat.completions.stream(model="mock", messages=ASK) as stream:
            for event in stream:
                if event.type == "content.delta":
                    text += event.delta
    assert raised.value.code == "insufficient_quota"
    assert text


def test_402_in_the_middle_with_the_asynchronous_client(connect, poor):
    key, _ = poor
    chunks = []

    async def stream():
        async with connect(key, openai.AsyncOpenAI) as client:
            answer = await client.chat.completions.create(model="mock", messages=ASK, stream=True)
            async for chunk in answer:
                chunks.append(chunk)

    with pytest.raises(openai.APIError) as raised:
        asyncio.run(stream())
    assert raised.value.code == "insufficient_quota"
    assert text_of(chunks)


def test_an_unknown_model_is_404(client):
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-nothing", messages=ASK)
    assert raised.value.code == "model_not_found"
    assert raised.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-nothing")


def test_a_forbidden_model_is_403(connect, operator):
    client = connect(operator.new_key(models=["mock-500"]))
    with pytest.raises(openai.PermissionDeniedError) as raised:
        client.chat.completions.create(model="mock", messages=ASK)
    assert raised.value.code == "not_permitted"
    assert "mock" not in {model.id for model in client.models.list()}


def test_a_wrong_parameter_is_400(client):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="mock", messages=ASK, max_tokens=-1)
    assert raised.value.code == "invalid_request"
    assert raised.value.param == "max_tokens"


def test_too_fast_is_429(connect, key):
    with pytest.raises(openai.RateLimitError) as raised:
        connect(key, max_retries=0).chat.completions.create(model="mock-429", messages=ASK)
    assert raised.value.code == "rate_limit_exceeded"
    assert int(raised.value.response.headers["retry-after"]) >= 1


def test_what_may_be_retried_is_retried_and_counted(connect, key, operator):
    """The other side of "not retried": the same count sees the SDK's second attempt."""
    before = operator.requests(model="mock-429", status="429")
    with pytest.raises(openai.RateLimitError):
        connect(key, max_retries=1).chat.completions.create(model="mock-429", messages=ASK)
    assert operator.requests(model="mock-429", status="429") - before == 2
    assert key.left(charges=2) == 1, "nothing is owed for it"


def test_a_failed_provider_is_502(connect, key):
    with pytest.raises(openai.InternalServerError) as raised:
        connect(key, max_retries=0).chat.completions.create(model="mock-500", messages=ASK)
    assert raised.value.status_code == 502
    assert raised.value.code == "upstream_error"


def test_a_cut_stream_raises(connect, key):
    chunks = []
    client = connect(key)
    with pytest.raises(openai.APIError) as raised:
        read(client.chat.completions.create(model="mock-drop-midstream", messages=ASK, stream=True), chunks)
    assert raised.value.code == "upstream_error"
    assert text_of(chunks), "the partial text is kept"
