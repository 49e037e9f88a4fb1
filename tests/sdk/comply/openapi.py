"""Has schemathesis, unmodified, call every operation of the served OpenAPI document, and judges the answers by it.

    python tests/sdk/gateway.py -- python tests/sdk/comply/openapi.py [--examples N]

No answer is a 5xx or undocumented, and every body and header conforms. The document is narrowed for the run, so that calls
reach more than the first refusal: models and ids are those that are there. Operations are the cases that are counted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import gateway as programs  # noqa: E402

RUN_SECONDS_MAX = 540
SEED = "1"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
METHODS = ("get", "post", "put", "patch", "delete")
CHATS = ["mock", "claude", "scripted/mock"]


class Gateway:
    """The running gateway, and what the calls are to find there."""

    def __init__(self):
        self.url = os.environ["SDK_TEST_URL"]
        self.admin_key = os.environ["SDK_TEST_ADMIN_KEY"]
        self.key = self.new_key()
        # Calls may revoke this one and disable its account.
        self.changed = self.new_key()
        chat = {"model": "mock", "messages": [{"role": "user", "content": "Hello"}]}
        self.call("POST", "/v1/chat/completions", chat, self.key["secret"], 200)
        charges = self.call("GET", f"/admin/v1/charges?account_id={self.key['account_id']}", None, self.admin_key, 200)
        self.request_ids = [charge["request_id"] for charge in charges["data"]]

    def call(self, method, path, body, secret, expected):
        """One call; gives the answer's JSON."""
        headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        status, text = programs.request(self.url + path, headers, data, method)
        assert status == expected, f"{method} {path}: {status} {text}"
        return json.loads(text)

    def new_key(self):
        """A key with an account and credits of its own."""
        body = {"name": "schemathesis", "credits": "100000"}
        return self.call("POST", "/admin/v1/keys", body, self.admin_key, 201)

    def document(self):
        """The served document, narrowed to what is there."""
        status, text = programs.request(f"{self.url}/openapi.json")
        assert status == 200, text
        document = json.loads(text)
        for path, item in document["paths"].items():
            for method in METHODS:
                if method in item:
                    self.narrow(path, item[method])
        self.name_models(document)
        return document

    def narrow(self, path, operation):
        """Of the three ways to send an API key, one; of all ids, those that mean something."""
        if "security" in operation:
            operation["security"] = operation["security"][:1]
        account = [self.changed["account_id"]]
        ids = {
            "/admin/v1/accounts": account,
            "/admin/v1/keys": [self.changed["id"]],
            "/v1/models": CHATS,
            "/v1/generation": self.request_ids,
        }
        for parameter in operation.get("parameters", []):
            known = next((known for start, known in ids.items() if path.startswith(start)), None)
            if parameter["name"] == "id" and known:
                parameter["schema"]["enum"] = known
            if parameter["name"] == "account_id":
                parameter["schema"]["enum"] = account

    @staticmethod
    def name_models(document):
        """The models that answer at each endpoint."""
        models = dict.fromkeys(("chat/completions", "responses", "messages", "messages/count_tokens", "quote"), CHATS)
        paths = {
            "image_generations": "images/generations",
            "image_edits": "images/edits",
            "speech": "audio/speech",
            "transcriptions": "audio/transcriptions",
            "translations": "audio/translations",
        }
        for model, (endpoint, _) in programs.OTHERS.items():
            path = paths.get(endpoint, endpoint)
            models[path] = [*models.get(path, []), model]
        for path, named in models.items():
            content = document["paths"][f"/v1/{path}"]["post"]["requestBody"]["content"]
            for kind in content.values():
                # A schema of its own: two endpoints may share one.
                name = kind["schema"]["$ref"].rsplit("/", 1)[1]
                schema = json.loads(json.dumps(document["components"]["schemas"][name]))
                schema["properties"]["model"]["enum"] = named
                kind["schema"] = schema


def judged(report):
    """The operations of a report: name -> what is wrong with it."""
    cases = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        troubles = [*case.iter("failure"), *case.iter("error")]
        cases[case.get("name")] = [trouble.get("message") or trouble.text or "" for trouble in troubles]
    return cases


def main():
    """Runs everything and sums up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=15, help="generated calls of an operation at most, in each phase")
    arguments = parser.parse_args()
    gateway = Gateway()
    with tempfile.TemporaryDirectory(prefix="tollway-openapi-") as folder:
        document, config, report = (Path(folder, name) for name in ("document.json", "schemathesis.toml", "report.xml"))
        document.write_text(json.dumps(gateway.document()))
        config.write_text(
            f'[auth.openapi.ApiKey]\nbearer = "{gateway.key["secret"]}"\n'
            f'[auth.openapi.AdminKey]\nbearer = "{gateway.admin_key}"\n'
        )
        command = [Path(sys.executable).parent / "schemathesis", "--config-file", config, "run", document]
        command += ["--url", gateway.url, "--seed", SEED, "--max-examples", arguments.examples, "--workers", 2]
        command += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--no-color"]
        # How fast this machine is, is no finding.
        command += ["--suppress-health-check", "all", "--request-timeout", 60]
        command += ["--report", "junit", "--report-junit-path", report]
        run = subprocess.run(
            [str(part) for part in command],
            cwd=folder,
            env=programs.clean_environment(),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS_MAX,
        )
        print(run.stdout + run.stderr)
        cases = judged(report) if report.exists() else {}
    for name, troubles in sorted(cases.items()):
        print(f"{'FAIL' if troubles else 'ok  '} {name}")
    failed = sum(bool(troubles) for troubles in cases.values())
    if run.returncode and not failed:
        print(f"FAIL schemathesis ended with {run.returncode}")
        failed = 1
    print(f"{len(cases) - sum(map(bool, cases.values()))} passed, {failed} failed")
    sys.exit(1 if failed or not cases else 0)


if __name__ == "__main__":
    main()
