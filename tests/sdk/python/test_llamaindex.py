"""LlamaIndex's OpenAILike, unmodified, against the running gateway."""

from decimal import Decimal

import openai
import pytest
from conftest import TOKEN
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

ASK = [ChatMessage(role="user", content="Tell me something nice.")]
CALL = [ChatMessage(role="user", content="Please call the tool.")]
PAID = 20


class Answer(BaseModel):
    """What the scripted provider says when it is asked for JSON."""

    answer: str


def get_weather(city: str, days: int) -> str:
    """The weather of a city."""
    return f"sunny in {city} for {days} days"


@pytest.fixture
def connect(operator):
    """Makes chat models; retries as LlamaIndex has them, unless told otherwise."""

    def make(key, model="mock", **options):
        return OpenAILike(
            model=model,
            api_base=f"{operator.url}/v1",
            api_key=getattr(key, "secret", key),
            is_chat_model=True,
            is_function_calling_model=True,
            **options,
        )

    return make


@pytest.fixture
def chat(connect, key):
    """A chat model with credits to spare."""
    return connect(key)


@pytest.fixture
def poor(operator, prompt_tokens):
    """A key that can pay for its prompt and PAID tokens of output."""
    messages = [{"role": "user", "content": ASK[0].content}]
    return operator.new_key((prompt_tokens(messages, stream=True) + PAID) * TOKEN)


def test_chat(chat, key):
    answer = chat.chat(ASK)
    assert len(answer.message.content.split()) > 40
    usage = answer.raw.usage
    assert 1 - key.left(charges=1) == Decimal(usage.cost) == usage.total_tokens * TOKEN


def test_a_stream_has_the_text_of_the_plain_answer(chat):
    pieces = list(chat.stream_chat(ASK))
    assert "".join(piece.delta or "" for piece in pieces) == chat.chat(ASK).message.content


def test_tools(chat):
    tool = FunctionTool.from_defaults(get_weather)
    answer = chat.chat_with_tools([tool], chat_history=CALL)
    (call,) = chat.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "demo", "days": 1})


def test_streamed_tools_are_put_together(chat):
    tool = FunctionTool.from_defaults(get_weather)
    *_, last = chat.stream_chat_with_tools([tool], chat_history=CALL)
    (call,) = chat.get_tool_calls_from_response(last)
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "demo", "days": 1})


def test_structured_output(connect, key):
    chat = connect(key, should_use_structured_outputs=True)
    assert chat.as_structured_llm(Answer).chat(ASK).raw == Answer(answer="yes")


@pytest.mark.parametrize("how", ["chat", "stream_chat"])
def test_no_credits_is_402_and_not_retried(connect, operator, how):
    chat = connect(operator.new_key(credits=None))
    before = operator.requests(status="402")
    with pytest.raises(openai.APIStatusError) as raised:
        list(getattr(chat, how)(ASK))
    assert (raised.value.status_code, raised.value.code) == (402, "insufficient_quota")
    assert operator.requests(status="402") - before == 1


def test_402_in_the_middle_of_a_stream(chat, connect, poor, operator):
    whole = chat.chat(ASK).message.content
    before = operator.requests(model="mock")
    pieces = []
    with pytest.raises(openai.APIError) as raised:
        for piece in connect(poor).stream_chat(ASK):
            pieces.append(piece.delta or "")
    assert raised.value.code == "insufficient_quota"
    assert raised.value.body["metadata"]["reason"] == "credits_exhausted"
    text = "".join(pieces)
    assert whole.startswith(text) and 0 < len(text) < len(whole), "the partial text is kept"
    assert poor.left(charges=1) == 0
    assert operator.requests(model="mock") - before == 1, "LlamaIndex tried again"


def test_an_unknown_model_is_404(connect, key):
    with pytest.raises(openai.NotFoundError) as raised:
        connect(key, model="gpt-nothing").chat(ASK)
    assert raised.value.code == "model_not_found"
