"""Checks the files of an operator: started by check.sh, which finds the tools. Standard library only."""

import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import promql

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus/alerts.yml"
ALERT_TESTS = DEPLOY / "prometheus/alerts_test.yml"
DASHBOARD = DEPLOY / "grafana/dashboards/tollway.json"
OPERATIONS = ROOT / "docs/operations.md"
PROMTOOL = os.environ.get("PROMTOOL", "promtool")
COMPOSE = os.environ.get("COMPOSE", "").split()
COMPOSE_ENV = {"POSTGRES_PASSWORD": "a", "TOLLWAY_ADMIN_KEY": "b", "GRAFANA_ADMIN_PASSWORD": "c"}

results = []


def check(name, problems):
    """Records one check: it passes when `problems` is empty."""
    problems = [str(p) for p in problems]
    results.append(not problems)
    print(f"{'ok  ' if not problems else 'FAIL'} {name}")
    for problem in problems:
        print("     " + problem.strip().replace("\n", "\n     "))


def run(*command, **options):
    """Runs a tool; gives its exit code and all it printed. A tool that is missing is an exit code too."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout + done.stderr


def tool(*command):
    """The output of a tool as the list of problems that `check` takes."""
    code, output = run(*command)
    return [] if code == 0 else [output or f"exit code {code}"]


# --- Prometheus ---------------------------------------------------------------------------------


def read_alerts():
    """The alerts as {name: {expr, severity, annotation...}}; promtool has seen that the YAML is right."""
    alerts, now, block = {}, None, None
    for line in ALERTS.read_text().splitlines():
        indent = len(line) - len(line.lstrip())
        if block is not None:
            if line.strip() and indent <= block:
                block = None
            else:
                now["expr"] += line + "\n"
                continue
        if found := re.match(r"\s*- alert: (\S+)$", line):
            now = alerts[found[1]] = {"expr": ""}
        elif found := re.match(r"\s*expr: (.+)$", line):
            if found[1] == "|":
                block = indent
            else:
                now["expr"] = found[1]
        elif found := re.match(r"\s*labels: \{severity: (\w+)\}$", line):
            now["severity"] = found[1]
        elif found := re.match(r"\s*(summary|description|runbook): (.+)$", line):
            now[found[1]] = found[2]
    return alerts


def check_alerts(alerts):
    code, output = run(PROMTOOL, "check", "rules", str(ALERTS))
    counted = re.search(r"(\d+) rules found", output)
    check("promtool check rules", [output] if code else [])
    check("promtool check config", tool(PROMTOOL, "check", "config", str(DEPLOY / "prometheus/prometheus.yml")))
    check("promtool test rules", tool(PROMTOOL, "test", "rules", str(ALERT_TESTS)))
    check(
        f"all {len(alerts)} rules were read here as well",
        [] if counted and int(counted[1]) == len(alerts) else [f"promtool counts {counted and counted[1]}"],
    )
    tests = ALERT_TESTS.read_text()
    cases = re.findall(r"alertname: (\w+)\n\s+eval_time: \S+[^\n]*\n\s+exp_alerts:[ ]*(\[\])?", tests)
    fires = {name for name, quiet in cases if not quiet}
    silent = {name for name, quiet in cases if quiet}
    sections = set(re.findall(r"^### (Tollway\w+)$", OPERATIONS.read_text(), re.M))
    for name, alert in alerts.items():
        problems = [f"no {key}" for key in ("summary", "description") if not alert.get(key)]
        problems += [] if alert.get("severity") in ("critical", "warning") else ["no severity"]
        problems += [] if alert.get("runbook") == f"docs/operations.md#{name.lower()}" else ["runbook is not its section"]
        problems += [] if name in sections else ["no section in docs/operations.md"]
        problems += [] if name in fires else ["no test in which it fires"]
        problems += [] if name in silent else ["no test in which it does not fire"]
        problems += promql.faults(alert["expr"])
        check(f"alert {name}", problems)
    check("operations.md has no section of an alert that is gone", sorted(sections - alerts.keys()))
    check("every case of the alert tests was read", [] if len(cases) == tests.count("alertname:") else ["another layout"])
    series = re.findall(r"- series: (.+)$", tests, re.M)
    check("the alert tests feed series that the gateway has", [f"{s}: {f}" for s in series for f in promql.faults(s)])


# --- Grafana ------------------------------------------------------------------------------------


def overlaps(panels):
    """Panels that leave the 24 columns or lie over one another."""
    taken, problems = {}, []
    for panel in panels:
        at = panel["gridPos"]
        if at["x"] < 0 or at["x"] + at["w"] > 24:
            problems.append(f"{panel['title']} leaves the grid")
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            if taken.setdefault(cell, panel["id"]) != panel["id"]:
                problems.append(f"{panel['title']} lies over panel {taken[cell]}")
                break
    return problems


def check_dashboard():
    try:
        dashboard = json.loads(DASHBOARD.read_text())
    except ValueError as error:
        check("the dashboard is JSON", [error])
        return
    panels = dashboard["panels"]
    problems = overlaps(panels)
    if len({p["id"] for p in panels}) != len(panels):
        problems.append("two panels have the same id")
    if not isinstance(dashboard.get("schemaVersion"), int) or dashboard["schemaVersion"] < 41:
        problems.append("schemaVersion is old")
    rows = [p["title"] for p in panels if p["type"] == "row"]
    if rows != ["Traffic", "Latency", "Money", "Ledger", "Upstream"]:
        problems.append(f"rows are {rows}")
    source = next(v for v in dashboard["templating"]["list"] if v["type"] == "datasource")
    provisioned = (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    if f"uid: {source['current']['value']}\n" not in provisioned:
        problems.append("its data source is not the provisioned one")
    check("the dashboard is well formed", problems)

    exprs, problems = [], []
    for panel in panels:
        targets = panel.get("targets", [])
        if panel["type"] != "row" and not targets:
            problems.append(f"{panel['title']}: no query")
        if panel["type"] != "row" and "unit" not in panel["fieldConfig"]["defaults"]:
            problems.append(f"{panel['title']}: no unit")
        for target in targets:
            exprs.append(target["expr"])
            problems += [f"{panel['title']}: {f}" for f in promql.faults(target["expr"])]
    check(f"the dashboard's {len(exprs)} queries use the gateway's metrics and labels", problems)
    shown = {name for name in promql.METRICS for e in exprs if re.search(rf"\b{name}(_bucket|_sum|_count)?\b", e)}
    check("every metric of the gateway is on the dashboard", sorted(promql.METRICS.keys() - shown))

    # promtool has no command for a bare expression; a recording rule is parsed the same way.
    rules = [
        {"record": f"dashboard:query:{n}", "expr": e.replace("$__rate_interval", "5m")} for n, e in enumerate(exprs)
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rules.yml")
        file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        check("promtool parses every query of the dashboard", tool(PROMTOOL, "check", "rules", str(file)))


# --- Compose, image -----------------------------------------------------------------------------


def compose_config(variables):
    """`config -q` with exactly these variables, whatever .env or the caller's environment say."""
    text = (ROOT / "docker-compose.yml").read_text()
    named = set(re.findall(r"\$\{(\w+)", text))
    environment = {k: v for k, v in os.environ.items() if k not in named}
    with tempfile.NamedTemporaryFile("w", suffix=".env") as file:
        file.write("".join(f"{k}={v}\n" for k, v in variables.items()))
        file.flush()
        command = [*COMPOSE, "--env-file", file.name, "-f", str(ROOT / "docker-compose.yml"), "config", "-q"]
        return run(*command, env=environment, cwd=ROOT)


def check_compose():
    text = (ROOT / "docker-compose.yml").read_text()
    if not COMPOSE:
        check("the compose file", ["neither `docker compose` nor `docker-compose` is here, and none could be installed"])
    else:
        version = run(*COMPOSE, "version")[1].splitlines()[0]
        code, output = compose_config(COMPOSE_ENV)
        check(f"{' '.join(COMPOSE)} config ({version})", [output or "failed"] if code else [])
        for name in COMPOSE_ENV:
            left = {k: v for k, v in COMPOSE_ENV.items() if k != name}
            code, output = compose_config(left)
            check(f"compose refuses to start without {name}", [] if code and ".env" in output else ["it does not"])
            code, _ = compose_config({**left, name: ""})
            check(f"compose refuses to start with an empty {name}", [] if code else ["it does not"])
    ports = re.findall(r"^\s*ports:(.*)$", text, re.M)
    bad = [p for p in ports if not re.fullmatch(r' \["127\.0\.0\.1:\$\{\w+:-\d+\}:\d+"\]', p)]
    check(f"all {len(ports)} published ports are on loopback", bad if ports else ["none is published"])
    images = re.findall(r"^\s*image: (.+)$", text, re.M)
    check(
        "images of others are pinned",
        [i for i in images if i != "tollway" and not re.search(r":v?\d+(\.\d+\.\d+|-\w+)$", i)],
    )
    example = (ROOT / ".env.example").read_text()
    names = set(re.findall(r"\$\{(\w+)", text)) | set(re.findall(r"^\s{6}([A-Z_]+):$", text, re.M))
    check(
        ".env.example names every variable of the compose file, and fills in no secret",
        [n for n in sorted(names) if not re.search(rf"^#?{n}=", example, re.M)]
        + [f"{n} has a value" for n in COMPOSE_ENV if not re.search(rf"^{n}=$", example, re.M)],
    )


def context_paths():
    """What .dockerignore lets through: it shuts everything out first, then names what the build reads."""
    lines = [l for l in (ROOT / ".dockerignore").read_text().splitlines() if l and not l.startswith("#")]
    if lines[0] != "*":
        return None
    return [ROOT / l[1:] for l in lines if l.startswith("!")]


def check_image():
    paths = context_paths()
    if paths is None:
        check("the build context is a list of what is let in", [".dockerignore does not begin with *"])
        return
    allowed = [p for p in paths if p.exists()]
    problems = []
    for file in (ROOT / "crates").rglob("src/**/*.rs"):
        for name in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', file.read_text(encoding="utf-8")):
            target = (file.parent / name).resolve()
            # Fixtures are read by tests only, which the image does not build.
            if ROOT / "tests" not in target.parents and not any(target == p or p in target.parents for p in allowed):
                problems.append(f"{file.relative_to(ROOT)} includes {name}")
    check("files that the code includes are in the build context", problems)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    missing = [s for line in copied for s in line.split() if s != "." and ROOT / s not in allowed]
    check("files that the Dockerfile copies are in the build context", missing)
    if not shutil.which("cargo"):
        print("skip cargo reads the workspace from the build context alone: no cargo here")
        return
    with tempfile.TemporaryDirectory() as folder:
        for path in allowed:
            goal = Path(folder, path.relative_to(ROOT))
            goal.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, goal, ignore=shutil.ignore_patterns("target"))
            else:
                shutil.copy(path, goal)
        code, output = run("cargo", "metadata", "--no-deps", "--offline", "--format-version=1", cwd=folder)
        problems = [output] if code else []
        if not code:
            packages = {p["name"]: p["targets"] for p in json.loads(output[output.index('{"') :])["packages"]}
            binaries = [t["name"] for t in packages.get("gateway", []) if "bin" in t["kind"]]
            if "gateway" not in packages or (binaries and "tollway" not in binaries):
                problems.append(f"the Dockerfile builds tollway from gateway, which has {binaries}")
        check("cargo reads the workspace from the build context alone", problems)


class Answers(http.server.BaseHTTPRequestHandler):
    """/healthz is 200, /slow says nothing until the test is over, the rest is 503."""

    over = threading.Event()

    def do_GET(self):
        if self.path == "/slow":
            self.over.wait(30)
        self.send_response(200 if self.path in ("/healthz", "/slow") else 503)
        self.end_headers()

    def log_message(self, *_):
        pass


def check_health():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: a connection is refused
        cases = [
            ("200 is healthy", server.server_port, [], 0),
            ("503 is not", server.server_port, ["/other"], 1),
            ("silence is not", server.server_port, ["/slow"], 1),
            ("nobody listening is not", unused.getsockname()[1], [], 1),
        ]
        for name, port, arguments, expected in cases:
            environment = {**os.environ, "TOLLWAY_LISTEN": f"0.0.0.0:{port}"}
            code, _ = run("bash", str(DEPLOY / "healthcheck.sh"), *arguments, env=environment)
            check(f"health check: {name}", [] if code == expected else [f"exit code {code}"])
    Answers.over.set()
    server.shutdown()


def main():
    check_alerts(read_alerts())
    check_dashboard()
    check_compose()
    check_image()
    check_health()
    failed = results.count(False)
    print(f"{results.count(True)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
