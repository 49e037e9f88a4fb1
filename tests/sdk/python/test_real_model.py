"""openai-python against the gateway in front of a real model, through `cargo xtask real-model`."""

import json
import os
from decimal import Decimal

import gateway as programs
import openai
import pytest
from conftest import TOKEN

ASK = [{"role": "user", "content": "Write a long story about a lighthouse and the people who live near it."}]
MODEL = {"model": "gemma", "messages": ASK, "temperature": 0, "seed": 7}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
PAID = 25

pytestmark = [
    pytest.mark.skipif("SDK_TEST_SERVER" not in os.environ, reason="run by `cargo xtask real-model`"),
    pytest.mark.timeout(300),
]


@pytest.fixture
def connect(operator):
    """Makes clients."""
    return lambda key: openai.OpenAI(base_url=f"{operator.url}/v1", api_key=getattr(key, "secret", key))


@pytest.fixture
def prompt(prompt_tokens):
    """The prompt's tokens by our count."""
    return prompt_tokens(ASK, model="gemma", stream=True)


@pytest.fixture
def show(capsys):
    """Prints a line in the middle of the tests: what was measured is the point of this run."""

    def line(text):
        with capsys.disabled():
            print(f"\n  {text}", end="  ")

    return line


def servers_count(text):
    """How many tokens the model's own tokenizer makes of a text."""
    url = os.environ["SDK_TEST_SERVER"] + "/extras/tokenize/count"
    body = json.dumps({"input": text}).encode()
    status, answer = programs.request(url, {"content-type": "application/json"}, body)
    assert status == 200, answer
    # It counts the mark before every text too.
    return json.loads(answer)["count"] - 1


def text_of(chunks):
    """The text of a stream's chunks."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def read(stream, chunks):
    """Reads a stream into `chunks`, which keeps what came when it raises."""
    for chunk in stream:
        chunks.append(chunk)


def test_models_are_listed(connect, key):
    assert "gemma" in {model.id for model in connect(key).models.list()}


def test_chat_is_charged_as_the_server_reports(connect, key, prompt, prompt_tokens, show):
    raw = connect(key).chat.completions.with_raw_response.create(**MODEL, max_tokens=64)
    answer = raw.parse()
    text, usage = answer.choices[0].message.content, answer.usage
    assert text and raw.headers["x-request-id"].startswith("req_")
    (charge,) = key.charges(1)
    assert charge["usage_source"] == "reported"
    assert Decimal(usage.cost) == usage.total_tokens * TOKEN == 1 - key.left(charges=1)
    said = [{"role": "user", "content": text}]
    nothing = [{"role": "user", "content": ""}]
    ours = prompt_tokens(said, model="gemma") - prompt_tokens(nothing, model="gemma")
    show(f"plain:  prompt {usage.prompt_tokens} by the server, {prompt} by us")
    show(f"plain:  answer {usage.completion_tokens} by the server, {ours} by us; {len(text)} characters; billed: the server's")


def test_a_stream_is_charged_by_our_count(connect, key, prompt, show):
    chunks = list(connect(key).chat.completions.create(**MODEL, **STREAM, max_tokens=64))
    text = text_of(chunks)
    usage = chunks[-1].usage
    (charge,) = key.charges(1)
    assert charge["usage_source"] == "counted"
    assert usage.prompt_tokens == prompt
    assert Decimal(usage.cost) == usage.total_tokens * TOKEN == 1 - key.left(charges=1)
    pieces = sum(1 for chunk in chunks if chunk.choices and chunk.choices[0].delta.content)
    show(f"stream: answer {servers_count(text)} by the server's tokenizer, {usage.completion_tokens} by us, in {pieces} chunks; billed: ours")
    assert chunks[-2].choices[0].finish_reason in ("length", "stop")


def test_a_limit_that_was_lowered_is_told_and_kept(connect, operator, prompt):
    key = operator.new_key((prompt + PAID) * TOKEN)
    raw = connect(key).chat.completions.with_raw_response.create(**MODEL)
    most = int(raw.headers["x-tollway-max-tokens"])
    assert raw.parse().usage.completion_tokens <= most
    assert key.left(charges=1) >= 0


def test_an_unknown_key_is_401(connect):
    with pytest.raises(openai.AuthenticationError):
        connect("sk-tw-unknown").chat.completions.create(**MODEL)


def test_no_credits_is_402(connect, operator):
    with pytest.raises(openai.APIStatusError) as raised:
        connect(operator.new_key(credits=None)).chat.completions.create(**MODEL)
    assert (raised.value.status_code, raised.value.code) == (402, "insufficient_quota")


def test_an_unknown_model_is_404(connect, key):
    with pytest.raises(openai.NotFoundError):
        connect(key).chat.completions.create(model="gemma-nothing", messages=ASK)


def test_402_in_the_middle_of_a_stream(connect, operator, prompt, show):
    key = operator.new_key((prompt + PAID) * TOKEN)
    chunks = []
    with pytest.raises(openai.APIError) as raised:
        read(connect(key).chat.completions.create(**MODEL, **STREAM), chunks)
    assert raised.value.code == "insufficient_quota"
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [PAID]
    assert key.left(charges=1) == 0, "all that was paid in is used, and not a bit more"
    show(f"402:    {PAID} tokens paid, {PAID} delivered, {servers_count(text_of(chunks))} by the server's tokenizer")


def test_a_top_up_lets_a_running_stream_go_on(connect, operator, prompt, show):
    key = operator.new_key((prompt + PAID) * TOKEN)
    chunks = []
    for chunk in connect(key).chat.completions.create(**MODEL, **STREAM, max_tokens=3 * PAID):
        chunks.append(chunk)
        if len(chunks) == 3:
            operator.call("POST", f"/keys/{key.id}/credits", {"amount": "1"})
    usage = chunks[-1].usage
    assert usage.completion_tokens > PAID, "it did not get further than the first credits"
    assert key.left(charges=1) == 1 + (prompt + PAID) * TOKEN - Decimal(usage.cost)
    show(f"top-up: {PAID} tokens paid at first, {usage.completion_tokens} delivered after the top-up")
