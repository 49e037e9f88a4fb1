"""Runs openai-python's own API tests twice, against a mock of OpenAI and through the gateway, and compares them one by one.

    python tests/sdk/openai_tests/compare.py --node PATH [--binaries target/debug] [--document openapi.json]

The mock is Steady (npm: @stdy/cli), which serves OpenAI's OpenAPI document and checks every request by it. The document is
`--document`, else TOLLWAY_OPENAI_DOCUMENT, else the smaller one that the wheel of llm-comply brings. A test that passes
directly has to pass through the gateway, unless offered.toml says why it cannot.
"""

import argparse
import collections
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from importlib import metadata, resources
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import gateway as programs  # noqa: E402

STEADY = programs.ROOT / "tests/sdk/node/node_modules/@stdy/cli/steady.js"
SOURCES = programs.ROOT / ".tools/openai-tests"
LOAD_SECONDS_MAX = 60
RUN_SECONDS_MAX = 1200
WORKERS = "2"


def sources(version, digest):
    """The folder of the SDK's source distribution, which has its tests; downloaded once."""
    folder = SOURCES / f"openai-{version}"
    if (folder / "tests").is_dir():
        return folder
    SOURCES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SOURCES) as unpacked:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
        options = ["--no-build-isolation", "--no-binary", "openai", "--dest", unpacked, f"openai=={version}"]
        subprocess.run([*pip, *options], check=True, timeout=300)
        (archive,) = Path(unpacked).glob("*.tar.gz")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != digest:
            sys.exit(f"{archive.name} has the digest {found}, not {digest}")
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        Path(unpacked, f"openai-{version}").rename(folder)
    return folder


def document(given):
    """OpenAI's OpenAPI document, and where it is from."""
    named = given or os.environ.get("TOLLWAY_OPENAI_DOCUMENT")
    if named:
        return Path(named).resolve(), str(named)
    wheel = f"the smaller one of llm-comply {metadata.version('llm-comply')}"
    return Path(str(resources.files("llm_comply") / "specs/openai_chat.json")), wheel


def start_steady(node, described, folder):
    """Starts the mock; gives it and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    styles = [f"--validator-{where}-{what}-format=brackets" for where in ("query", "form") for what in ("array", "object")]
    command = [node, STEADY, "--host", "127.0.0.1", "-p", port, "--quiet", "--stream-interval=0", *styles, described]
    steady = programs.Program(command, folder, programs.clean_environment())
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + LOAD_SECONDS_MAX
    while time.monotonic() < deadline and steady.process.poll() is None:
        try:
            if programs.request(f"{url}/_x-steady/health")[0] == 200:
                return steady, url
        except OSError:
            pass
        time.sleep(0.1)
    steady.kill()
    sys.exit(f"the mock did not answer:\n{steady.output()}{steady.log()}")


def provider_file(described, url, not_passed, by_usage):
    """The mock as a provider: its models, and every path of the document that the gateway may pass on, for everybody."""
    rules = [f'"{rule}" = {{ price = "usage" }}' for rule in by_usage]
    for path, item in json.loads(described.read_text())["paths"].items():
        methods = [method.upper() for method in ("get", "post", "delete") if method in item]
        # With a space behind it, a beginning is a whole path.
        offered = [f"{method} {path}" for method in methods if not f"{method} {path} ".startswith(tuple(not_passed))]
        rules += [f'"{rule}" = {{ price = "free", shared = true }}' for rule in offered if "?" not in path]
    own = (HERE / "steady.toml").read_text().replace("STEADY_URL", url)
    return own + "\n[passthrough]\n" + "\n".join(rules) + "\n"


def run_tests(folder, files, url, secret, outcomes):
    """Runs the SDK's tests; writes a line for each test, which is read back: name -> outcome."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "--tb=no", "--no-summary", "-n", WORKERS]
    command += ["-p", "recorder", "-p", "no:cacheprovider", *files]
    environment = programs.clean_environment(
        TEST_API_BASE_URL=url,
        TOLLWAY_TEST_SECRET=secret,
        TOLLWAY_TEST_OUTCOMES=str(outcomes),
        PYTHONPATH=str(HERE),
        PYTHONDONTWRITEBYTECODE="1",
    )
    outcomes.unlink(missing_ok=True)
    run = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=RUN_SECONDS_MAX
    )
    if not outcomes.exists():
        sys.exit(f"pytest did not run:\n{run.stdout}{run.stderr}")
    return dict(line.split("\t", 1) for line in outcomes.read_text().splitlines())


def through_the_gateway(binaries, folder, provider, files, sdk):
    """Runs the tests through a gateway in front of the mock; gives their outcomes and whether the books are right."""
    outcomes = Path(folder, "through.txt")
    command = [sys.executable, __file__, "--inside", "--folder", sdk, "--outcomes", outcomes, *files]
    code = programs.serve(binaries, folder, [provider], [str(part) for part in command])
    return json.loads(Path(f"{outcomes}.json").read_text()), code


def inside(arguments):
    """The part that runs while the gateway does: a key of its own, then the tests."""
    url, admin_key = os.environ["SDK_TEST_URL"], os.environ["SDK_TEST_ADMIN_KEY"]
    headers = {"authorization": f"Bearer {admin_key}", "content-type": "application/json"}
    status, text = programs.request(f"{url}/admin/v1/keys", headers, b'{"name":"openai-python","credits":"1000000"}')
    assert status == 201, text
    secret = json.loads(text)["secret"]
    found = run_tests(arguments.folder, arguments.files, f"{url}/v1", secret, arguments.outcomes)
    Path(f"{arguments.outcomes}.json").write_text(json.dumps(found))


def reason(name, not_offered):
    """Why a test is left out, if it is."""
    file, test = name.removeprefix("tests/api_resources/").split("::")[0], name.rsplit("::", 1)[-1].split("[")[0]
    for group in not_offered:
        if file.startswith(group["file"]) and re.search(group.get("tests", ""), test):
            return group["why"]
    return None


def compare(direct, through, not_offered):
    """Prints a line for each file, and each difference; gives what passed and what failed."""
    files, troubles, left_out = collections.defaultdict(collections.Counter), [], collections.Counter()
    for name in sorted({*direct, *through}):
        here, there = direct.get(name, "missing"), through.get(name, "missing")
        why = reason(name, not_offered)
        row = files[name.split("::")[0].removeprefix("tests/api_resources/")]
        row[f"direct {here}"] += 1
        row[f"through {there}"] += 1
        if here != "passed":
            continue
        if there == "passed":
            row["same"] += 1
        elif why:
            row["left out"] += 1
            left_out[why] += 1
        else:
            troubles.append(f"{name} passes directly and is {there} through the gateway")
    print(f"{'file':44} {'direct':>18} {'through':>18} {'same':>6} {'left out':>9}")
    for file, row in files.items():
        counts = ["/".join(str(row[f"{way} {how}"]) for how in ("passed", "failed", "skipped")) for way in ("direct", "through")]
        print(f"{file:44} {counts[0]:>18} {counts[1]:>18} {row['same']:>6} {row['left out']:>9}")
    for why in dict.fromkeys(group["why"] for group in not_offered):
        print(f"left out, {left_out[why]} tests: {why}")
    for trouble in troubles:
        print(f"FAIL {trouble}")
    return sum(row["same"] for row in files.values()), len(troubles)


def main():
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=Path, default=programs.ROOT / "target/debug", help="folder of tollway")
    parser.add_argument("--node", default="node", help="the program of Node")
    parser.add_argument("--document", help="OpenAI's OpenAPI document")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--outcomes", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", help="test files or folders; left out: those of offered.toml")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.inside:
        return inside(arguments)
    offered = tomllib.loads((HERE / "offered.toml").read_text())
    sdk = sources(metadata.version("openai"), offered["sdist"]["sha256"])
    described, origin = document(arguments.document)
    print(f"OpenAI's document: {origin}")
    files = arguments.files or [f"tests/api_resources/{file}" for file in offered["files"]]
    with tempfile.TemporaryDirectory(prefix="tollway-openai-") as folder:
        steady, url = start_steady(arguments.node, described, folder)
        try:
            direct = run_tests(sdk, files, url, "My API Key", Path(folder, "direct.txt"))
            provider = provider_file(described, url, offered["not_passed"], offered["by_usage"])
            through, code = through_the_gateway(arguments.binaries.resolve(), folder, provider, files, sdk)
        finally:
            steady.stop()
    passed, failed = compare(direct, through, offered["not_offered"])
    if code:
        print("FAIL the gateway did not end in order")
        failed += 1
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
