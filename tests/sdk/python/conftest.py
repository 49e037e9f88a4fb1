"""What the SDK tests share: the running gateway as an operator sees it, and keys made through its admin API."""

import json
import os
import re
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import gateway as programs  # noqa: E402

TOKEN = Decimal("0.000001")
BOOKS_SECONDS_MAX = 10


class Operator:
    """The gateway's admin API and metrics."""

    def __init__(self, url, admin_key):
        self.url = url
        self._headers = {"authorization": f"Bearer {admin_key}", "content-type": "application/json"}

    def call(self, method, path, body=None):
        """One admin call; gives the answer's JSON and fails on anything but success."""
        data = None if body is None else json.dumps(body).encode()
        status, text = programs.request(self.url + "/admin/v1" + path, self._headers, data, method)
        assert 200 <= status < 300, f"{method} {path}: {status} {text}"
        return json.loads(text)

    def new_key(self, credits="1", **more):
        """A key with an account and credits of its own."""
        body = {"name": "sdk test", **more}
        if credits is not None:
            body["credits"] = str(credits)
        return Key(self, self.call("POST", "/keys", body))

    def metric(self, name, **labels):
        """The sum over all series of a metric that have these labels."""
        _, text = programs.request(self.url + "/metrics")
        total = Decimal(0)
        for series, value in re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.M):
            if all(f'{label}="{wanted}"' in series for label, wanted in labels.items()):
                total += Decimal(value)
        return total

    def requests(self, **labels):
        """How many requests the gateway has answered, retries included."""
        return int(self.metric("tollway_requests_total", **labels))


class Key:
    """An API key and its account."""

    def __init__(self, operator, created):
        self.operator = operator
        self.secret = created["secret"]
        self.id = created["id"]
        self.account_id = created["account_id"]

    def charges(self, count):
        """Its requests, newest first, once `count` of them are written: the books follow within milliseconds."""
        deadline = time.monotonic() + BOOKS_SECONDS_MAX
        while True:
            charges = self.operator.call("GET", f"/charges?key_id={self.id}")["data"]
            if len(charges) >= count or time.monotonic() > deadline:
                assert len(charges) == count, charges
                return charges
            time.sleep(0.02)

    def left(self, charges):
        """What the account has in all, once `charges` requests are written. Nothing is held then."""
        self.charges(charges)
        balance = self.operator.call("GET", f"/accounts/{self.account_id}")["balance"]
        assert Decimal(balance["held"]) == 0, balance
        return Decimal(balance["total"])


@pytest.fixture(scope="session")
def operator():
    """The running gateway."""
    if "SDK_TEST_URL" not in os.environ:
        pytest.exit("run through tests/sdk/gateway.py, or `cargo xtask test --only sdk`", returncode=2)
    return Operator(os.environ["SDK_TEST_URL"], os.environ["SDK_TEST_ADMIN_KEY"])


@pytest.fixture(scope="session")
def binaries():
    """The folder of the built programs."""
    return Path(os.environ["SDK_TEST_BINARIES"])


@pytest.fixture
def key(operator):
    """A key with credits to spare."""
    return operator.new_key()


@pytest.fixture
def prompt_tokens(operator, key):
    """Counts a chat as the gateway does, without spending anything."""

    def count(messages, model="mock", **more):
        headers = {"authorization": f"Bearer {key.secret}", "content-type": "application/json"}
        body = json.dumps({"model": model, "messages": messages, **more}).encode()
        status, text = programs.request(operator.url + "/v1/quote", headers, body)
        assert status == 200, text
        return json.loads(text)["prompt_tokens"]

    return count
