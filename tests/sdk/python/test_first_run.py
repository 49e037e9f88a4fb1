"""The first run as a stranger does it: an empty folder, two snippets that are pasted, and a second start."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
from decimal import Decimal

import conftest
import gateway as programs
import pytest

READY_SECONDS_MAX = 0.150
STARTS = 5


@pytest.fixture
def folder(tmp_path):
    """An empty folder."""
    return tmp_path


@pytest.fixture
def start(binaries, folder):
    """Starts the gateway in the folder; every one is stopped at the end."""
    started = []

    def one(*arguments, **options):
        started.append(programs.Tollway(binaries, folder, *arguments, **options))
        return started[-1]

    yield one
    for program in started:
        assert program.stop() == 0, program.log()


def first_run(program):
    """The whole text of a first start, once its last line is there."""
    program.wait_for(r"print\(answer.*\n")
    return program.output()


def secrets(text):
    """Every secret in a text, in order, each once."""
    return list(dict.fromkeys(re.findall(r"sk-tw-\w+", text)))


def pasted(command, text=None):
    """What a shell or Python prints that was given the text as it stands."""
    done = subprocess.run(
        command,
        input=text,
        env=programs.clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def models(program, key):
    """The names of the models that are served."""
    status, text = programs.request(f"{program.url}/v1/models", {"authorization": f"Bearer {key}"})
    assert status == 200, text
    return {model["id"]: model["owned_by"] for model in json.loads(text)["data"]}


def test_the_curl_snippet_works_as_pasted(start):
    text = first_run(start())
    snippet = re.search(r"^curl -N .*?(?<!\\)\n", text, re.M | re.S)[0]
    events = [line[6:] for line in pasted(["sh", "-c", snippet]).splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    words = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert len(words.split()) > 40
    assert Decimal(chunks[-1]["usage"]["cost"]) > 0


def test_the_python_snippet_works_as_pasted(start):
    text = first_run(start())
    snippet = re.search(r"^# pip install openai\n.*", text, re.M | re.S)[0]
    printed = pasted([sys.executable, "-"], snippet)
    assert len(printed.split()) > 40
    assert re.search(r"cost='0\.\d+'", printed), printed


def test_a_second_start_keeps_the_data_and_prints_no_secret(start, folder):
    first = start()
    text = first_run(first)
    admin_key, demo_key = secrets(text)
    operator = conftest.Operator(first.url, admin_key)
    (key,) = operator.call("GET", "/keys")["data"]
    assert key["name"] == "demo"
    before = operator.call("GET", f"/accounts/{key['account_id']}")["balance"]["total"]
    body = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}).encode()
    headers = {"authorization": f"Bearer {demo_key}", "content-type": "application/json"}
    status, answer = programs.request(f"{first.url}/v1/chat/completions", headers, body)
    assert status == 200, answer
    assert first.stop() == 0
    assert programs.proved(first.process.args[0].rsplit("/", 1)[0], folder) is None

    second = start()
    assert models(second, demo_key)["demo"] == "demo"
    operator = conftest.Operator(second.url, admin_key)
    after = operator.call("GET", f"/accounts/{key['account_id']}")["balance"]["total"]
    assert Decimal(before) - Decimal(after) == Decimal(json.loads(answer)["usage"]["cost"]) > 0
    printed = second.output() + second.log()
    assert secrets(printed) == []
    assert admin_key not in first.log() and demo_key not in first.log(), "a secret is in the log"


def test_a_providers_key_serves_its_models(start):
    program = start(OPENAI_API_KEY="sk-not-a-real-key")
    text = first_run(program)
    served = models(program, secrets(text)[1])
    assert "openai" in served.values()
    assert "demo" not in served
    assert "sk-not-a-real-key" not in text + program.log()


def test_a_stop_right_after_the_start_is_in_order(binaries, folder):
    for _ in range(STARTS):
        command = [f"{binaries}/tollway", "--listen", "127.0.0.1:0"]
        program = programs.Program(command, folder, programs.clean_environment())
        program.wait_for("listens on")
        assert program.stop() == 0, program.log()


def test_an_unknown_setting_is_named(binaries, folder):
    done = subprocess.run(
        [f"{binaries}/tollway", "--listen", "127.0.0.1:0"],
        cwd=folder,
        env=programs.clean_environment(TOLLWAY_LISTN="127.0.0.1:1"),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0
    assert "TOLLWAY_LISTN" in done.stdout + done.stderr
    assert '"listen"' in done.stdout + done.stderr


def test_a_cold_start_is_quick(start, folder, binaries, capsys):
    """With the data there, /readyz answers at once. Only an optimised build is held to the figure."""
    first_run(first := start())
    assert first.stop() == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        listen = "127.0.0.1:{}".format(free.getsockname()[1])
    took = []
    for _ in range(STARTS):
        begun = time.monotonic()
        program = programs.Program(
            [f"{binaries}/tollway", "--listen", listen], folder, programs.clean_environment()
        )
        try:
            while not ready(listen):
                assert time.monotonic() - begun < 30, program.log()
                # A pause so short that it hardly counts, so that asking does not take the time away.
                time.sleep(0.002)
            took.append(time.monotonic() - begun)
        finally:
            assert program.stop() == 0
    best = min(took)
    with capsys.disabled():
        every = ", ".join(f"{seconds * 1000:.0f}" for seconds in took)
        print(f"\n  cold start to /readyz: best {best * 1000:.0f} ms of {every} ms ({binaries.name} build)")
    if binaries.name == "release":
        assert best < READY_SECONDS_MAX


def ready(listen):
    """Whether /readyz says so; not yet listening is a no."""
    try:
        return programs.request(f"http://{listen}/readyz")[0] == 200
    except (urllib.error.URLError, ConnectionError):
        return False
