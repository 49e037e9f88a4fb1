"""The metrics of the gateway, and which metrics and labels a PromQL expression uses."""

import re

# Name -> (kind, labels). This is the promise to operators: a name here is kept.
METRICS = {
    "tollway_requests_total": ("counter", {"endpoint", "model", "provider", "status"}),
    "tollway_request_duration_seconds": ("histogram", set()),
    "tollway_time_to_first_token_seconds": ("histogram", set()),
    "tollway_overhead_seconds": ("histogram", set()),
    "tollway_tokens_total": ("counter", {"model", "provider", "kind"}),
    "tollway_credits_charged_total": ("counter", {"model", "provider"}),
    "tollway_payment_required_total": ("counter", {"stage", "code"}),
    "tollway_streams_open": ("gauge", set()),
    "tollway_holds_open": ("gauge", set()),
    "tollway_held_credits": ("gauge", set()),
    "tollway_leased_credits": ("gauge", set()),
    "tollway_journal_queue": ("gauge", set()),
    "tollway_journal_lag_seconds": ("gauge", set()),
    "tollway_house_loss_credits_total": ("counter", {"cause"}),
    "tollway_ledger_imbalance_credits": ("gauge", set()),
    "tollway_upstream_errors_total": ("counter", {"provider", "kind"}),
    # Prometheus' own.
    "up": ("gauge", set()),
}
TARGET_LABELS = {"job", "instance"}
LABEL_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
OPERATORS = {"and", "or", "unless", "bool", "offset", "atan2", "nan", "inf"}
# Functions are known by their bracket; these may have `by (...)` before it.
AGGREGATIONS = {"sum", "min", "max", "avg", "count", "topk", "bottomk", "quantile", "stddev", "group"}

TOKEN = re.compile(r"[A-Za-z_:][\w:]*|\d[\w.]*|=~|!~|!=|[^\s\w]")


def labels_of(metric):
    """The labels that `metric` may carry, or None where there is no such metric."""
    if metric in METRICS:
        kind, labels = METRICS[metric]
        return None if kind == "histogram" else labels | TARGET_LABELS
    for suffix, more in (("_bucket", {"le"}), ("_sum", set()), ("_count", set())):
        base = metric.removesuffix(suffix)
        if base != metric and METRICS.get(base, ("", set()))[0] == "histogram":
            return METRICS[base][1] | TARGET_LABELS | more
    return None


def strip_text(expr):
    """`expr` without comments, Grafana's variables and what stands in quotes."""
    expr = re.sub(r'"(?:\\.|[^"\\])*"', '""', expr)
    expr = re.sub(r"#[^\n]*", "", expr)
    return re.sub(r"\[[^\]]*\]", "", expr)


def faults(expr):
    """What is wrong with the names in `expr`: unknown metrics, labels their metrics do not carry."""
    tokens = TOKEN.findall(strip_text(expr))
    found, used, grouped = [], [], set()
    at = 0
    while at < len(tokens):
        token, following = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else ""
        if token in LABEL_LISTS and following == "(":
            end = tokens.index(")", at)
            grouped |= {t for t in tokens[at + 2 : end] if t != ","}
            at = end
        elif token == "{":
            end = tokens.index("}", at)
            names = {t for t, after in zip(tokens[at + 1 : end], tokens[at + 2 : end]) if after in ("=", "=~", "!=", "!~")}
            if not used or tokens[at - 1] != used[-1]:
                found.append("a selector without a metric name")
            else:
                found += [f"{used[-1]} has no label {n}" for n in sorted(names - (labels_of(used[-1]) or names))]
            at = end
        elif token in AGGREGATIONS and following in ("(", "by", "without"):
            pass
        elif re.match(r"[A-Za-z_:]", token) and following != "(" and token.lower() not in OPERATORS:
            used.append(token)
            if labels_of(token) is None:
                found.append(f"{token} is not a metric of the gateway")
        at += 1
    known = set().union(*(labels_of(m) or set() for m in used)) if used else set()
    found += [f"no metric in the expression has the label {n}" for n in sorted(grouped - known)]
    if not used:
        found.append("no metric in the expression")
    return found
