"""Starts the built gateway with the scripted provider, runs one command against it, and proves the books.

    python3 tests/sdk/gateway.py [--binaries target/debug] -- COMMAND...

The command finds SDK_TEST_URL, SDK_TEST_ADMIN_KEY and SDK_TEST_BINARIES in its environment, and nothing of
the caller's that an SDK or the gateway would read (keys, base addresses, proxies). Standard library only.
"""

import argparse
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 60
KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL")

# One credit per million tokens either way: a token costs 0.000001, so amounts read as token counts.
MODELS = ("mock", "mock-429", "mock-500", "mock-drop-midstream", "mock-words-300")
PROVIDER = """name = "scripted"
dialect = "openai"
base_url = "{url}"
files = true
"""
# The same provider in Anthropic's dialect.
ANTHROPIC = """name = "scripted-anthropic"
dialect = "anthropic"
base_url = "{url}"
"""
MODEL = """
[[models]]
id = "{name}"
tokenizer = "o200k_base"
context_window = 128000
max_output_tokens = 16384
price = {{ prompt = "1", completion = "1" }}
"""
# The same provider, which has OpenAI's Responses itself and keeps them.
NATIVE = """name = "scripted-native"
dialect = "openai"
base_url = "{url}"
[quirks]
responses = "stored"
"""
# What does not chat: what it does, and what it is sold by.
OTHERS = {
    "mock-text": ("completions", 'prompt = "1", completion = "1"'),
    "mock-embed": ("embeddings", 'prompt = "1", completion = "0"'),
    "mock-moderate": ("moderations", 'request = "0.001"'),
    "mock-rerank": ("rerank", 'search = "0.002"'),
    "mock-image": ("image_generations", 'image = "0.04"'),
    "mock-edit": ("image_edits", 'image = "0.04"'),
    "mock-speech": ("speech", 'character = "15"'),
    "mock-speech-tokens": ("speech", 'prompt = "1", completion = "12"'),
    "mock-hear": ("transcriptions", 'second = "0.0001"'),
    "mock-translate": ("translations", 'second = "0.0001"'),
}
OTHER = """
[[models]]
id = "{name}"
endpoints = ["{endpoint}"]
tokenizer = "o200k_base"
context_window = 8192
price = {{ {price} }}
"""


def clean_environment(**more):
    """An environment without keys, base addresses, settings or proxies of whoever runs the tests."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return kept | {"NO_COLOR": "1"} | more


class Program:
    """A started program: what it prints is kept, and it is stopped in order."""

    def __init__(self, command, folder, environment):
        self.folder = Path(folder)
        self._log = tempfile.TemporaryFile()
        self._lines = []
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def output(self):
        """All of standard output so far."""
        with self._news:
            return "".join(self._lines)

    def log(self):
        """All of standard error so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def wait_for(self, pattern, seconds=START_SECONDS_MAX):
        """The first match of `pattern` in what it prints."""

        def found():
            return re.search(pattern, "".join(self._lines)) or self._ended

        with self._news:
            self._news.wait_for(found, seconds)
            match = re.search(pattern, "".join(self._lines))
        if match is None:
            self.kill()
            raise RuntimeError(f"{self.process.args[0]} did not print {pattern!r}:\n{self.output()}{self.log()}")
        return match

    def stop(self):
        """Asks it to stop; gives its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            self.kill()

    def kill(self):
        """Ends it at once, with whatever it started: a program may be a wrapper around another."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class Tollway(Program):
    """The gateway, started in a folder of its own; `url` is where it listens."""

    def __init__(self, binaries, folder, *arguments, listen="127.0.0.1:0", **environment):
        command = [Path(binaries) / "tollway", "--listen", listen, *arguments]
        super().__init__(command, folder, clean_environment(**environment))
        self.url = self.wait_for(r"listens on (http://\S+)")[1]
        # The text is printed at once; the line is complete when its successor is there.
        self.wait_for(r"It serves .*\n")


def request(url, headers=None, body=None, method=None):
    """One HTTP request, never through a proxy; gives the status and the text."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    call = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with opener.open(call, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def settled(url):
    """Waits until no request holds credits; gives what is wrong, if anything."""
    deadline = time.monotonic() + 10
    while True:
        _, metrics = request(f"{url}/metrics")
        held = re.search(r"^tollway_holds_open (\S+)$", metrics, re.M)
        if held and float(held[1]) == 0:
            return None
        if time.monotonic() > deadline:
            return f"holds are left open: {held[0] if held else metrics}"
        time.sleep(0.05)


def proved(binaries, folder):
    """Proves the books of a stopped gateway; gives what is wrong, if anything."""
    audit = subprocess.run(
        [str(Path(binaries) / "tollway"), "audit"],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    if audit.returncode == 0 and "balanced" in audit.stdout:
        return None
    return f"tollway audit: exit {audit.returncode}\n{audit.stdout}{audit.stderr}"


def run(binaries, command):
    """Starts the scripted provider and the gateway, runs the command, stops them; gives the exit code."""
    with tempfile.TemporaryDirectory(prefix="tollway-sdk-") as folder:
        provider = Program([binaries / "mock-provider", "--listen", "127.0.0.1:0"], folder, clean_environment())
        try:
            url = provider.wait_for(r"http://\S+/v1")[0]
            file = PROVIDER.format(url=url) + "".join(MODEL.format(name=name) for name in MODELS)
            for name, (endpoint, price) in OTHERS.items():
                file += OTHER.format(name=name, endpoint=endpoint, price=price)
            claude = ANTHROPIC.format(url=url) + MODEL.format(name="claude")
            native = NATIVE.format(url=url) + MODEL.format(name="mock-native")
            return serve(binaries, folder, [file, claude, native], command)
        finally:
            provider.stop()


def serve(binaries, folder, provider_files, command, **more):
    """Starts the gateway in front of providers, runs the command, proves the books; gives the exit code."""
    files = Path(folder, "providers")
    files.mkdir()
    for place, text in enumerate(provider_files):
        Path(files, f"tested-{place}.toml").write_text(text)
    admin_key = secrets.token_hex(16)
    gateway = Tollway(
        binaries,
        folder,
        "--providers",
        files,
        TOLLWAY_ADMIN_KEY=admin_key,
        TOLLWAY_TOP_UP_URL="https://pay.example/top-up",
    )
    environment = clean_environment(
        SDK_TEST_URL=gateway.url,
        SDK_TEST_ADMIN_KEY=admin_key,
        SDK_TEST_BINARIES=str(binaries),
        PYTHONDONTWRITEBYTECODE="1",
        **more,
    )
    try:
        code = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode
        wrong = [settled(gateway.url)]
    finally:
        stopped = gateway.stop()
    wrong.append(f"the gateway ended with {stopped}" if stopped else None)
    wrong.append(proved(binaries, folder))
    for problem in filter(None, wrong):
        print(f"after the tests: {problem}", file=sys.stderr)
    if any(wrong) or code:
        for line in gateway.log().splitlines():
            if " WARN " in line or " ERROR " in line:
                print(line, file=sys.stderr)
    return code or int(any(wrong))


def main():
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=Path, default=ROOT / "target/debug", help="folder of tollway and mock-provider")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    binaries = arguments.binaries.resolve()
    for name in ("tollway", "mock-provider"):
        if not (binaries / name).is_file():
            sys.exit(f"{binaries / name} is missing; run `cargo build -p gateway -p mock-provider --bins`")
    # Asked to stop, it stops what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(run(binaries, arguments.command))


if __name__ == "__main__":
    main()
