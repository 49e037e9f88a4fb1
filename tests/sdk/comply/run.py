"""Runs llm-comply and compatcanary, unmodified, against the running gateway, over a model of each scripted dialect.

    python tests/sdk/gateway.py -- python tests/sdk/comply/run.py --node PATH

Every check of theirs is a line here. One that cannot pass stands in IMPOSSIBLE with its reason, and has failed when it
passes; one that is skipped stands in SKIPPED, or it has failed.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import gateway as programs  # noqa: E402

MODELS = ("mock", "claude")
FORMATS = ("openai-chat", "open-responses", "anthropic")
RUN_SECONDS_MAX = 120
COMPATCANARY = programs.ROOT / "tests/sdk/node/node_modules/compatcanary/src/cli.js"

IMPOSSIBLE = {
    ("open-responses", "claude", "assistant-phase"): "its conversation begins with the assistant, which Claude does not take",
}
SKIPPED = {
    "chat-reasoning-summary": "for models that OpenAI's names say reason",
    "reasoning-summary": "for models that OpenAI's names say reason",
    "anth-thinking-display": "for models that Anthropic's names say think",
}


def secret():
    """A key with credits."""
    url, admin_key = os.environ["SDK_TEST_URL"], os.environ["SDK_TEST_ADMIN_KEY"]
    headers = {"authorization": f"Bearer {admin_key}", "content-type": "application/json"}
    status, text = programs.request(f"{url}/admin/v1/keys", headers, b'{"name":"comply","credits":"10"}')
    assert status == 201, text
    return json.loads(text)["secret"]


def report(what, passed, *trouble):
    """Prints how a check went; gives whether it passed."""
    print(f"{'ok  ' if passed else 'FAIL'} {what}")
    for line in () if passed else trouble:
        print(f"       {line}")
    return passed


def results_of(command, **environment):
    """Runs a suite that reports as JSON; gives its results, or what it printed instead."""
    run = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        env=programs.clean_environment(**environment),
    )
    try:
        return json.loads(run.stdout)["results"], ""
    except (ValueError, KeyError):
        return [], run.stdout + run.stderr


def llm_comply(url, key, text_format, model):
    """Runs all checks of a format over a model."""
    program = Path(sys.executable).parent / "llm-comply"
    options = ["--base-url", f"{url}/v1", "--model", model, "--format", text_format, "--api-key", key, "--json"]
    results, printed = results_of([program, *options])
    suite = f"llm-comply {text_format} {model}"
    outcomes = []
    for result in results:
        check, status = result["id"], result["status"]
        name = f"{suite}: {result['name']}"
        impossible = IMPOSSIBLE.get((text_format, model, check))
        if impossible and status == "failed":
            print(f"--   {name}: {impossible}")
        elif impossible:
            outcomes.append(report(f"{name} passes now: take it off the list", False))
        elif status == "skipped" and check in SKIPPED:
            print(f"--   {name}: {SKIPPED[check]}")
        else:
            outcomes.append(report(name, status == "passed", *result.get("errors", [])))
    return outcomes or [report(f"{suite}: it ran", False, printed)]


def compatcanary(node, url, key, model):
    """Runs compatcanary's probes over a model."""
    options = ["--base-url", f"{url}/v1", "--model", model, "--format", "json", "--fail-on", "never"]
    results, printed = results_of([node, COMPATCANARY, "scan", *options], OPENAI_API_KEY=key)
    suite = f"compatcanary {model}"
    outcomes = [
        report(f"{suite}: {result['name']}", result["status"] == "pass", result["summary"]) for result in results
    ]
    return outcomes or [report(f"{suite}: it ran", False, printed)]


def main():
    """Runs everything and sums up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", default="node", help="the program of Node 20 or newer")
    arguments = parser.parse_args()
    url, key = os.environ["SDK_TEST_URL"], secret()
    outcomes = []
    for model in MODELS:
        for text_format in FORMATS:
            outcomes += llm_comply(url, key, text_format, model)
        outcomes += compatcanary(arguments.node, url, key, model)
    print(f"{outcomes.count(True)} passed, {outcomes.count(False)} failed")
    sys.exit(0 if all(outcomes) else 1)


if __name__ == "__main__":
    main()
