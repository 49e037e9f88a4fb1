"""Writes the last two columns of table.txt: buckets and cost, worked out without the program.

Every convention is that of the provider's documents, every sum is decimal. Prices are read from
providers/*.toml. Needs nothing but Python 3.11. `--check` writes nothing and fails on a difference.
"""

import datetime
import json
import math
import pathlib
import sys
import tomllib
import zoneinfo
from decimal import Decimal

HERE = pathlib.Path(__file__).parent
PROVIDERS = HERE.parents[3] / "providers"
PROMPT = ["prompt", "cached_prompt", "cache_write_5m", "cache_write_1h", "audio_prompt", "image_prompt"]
OUTPUT = ["completion", "reasoning", "audio_completion", "image_completion"]
# When a row is charged that does not say so: a Wednesday, in nobody's cheaper hours.
USUALLY = "2026-11-25T08:00:00Z"
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
# What is sold by the piece: the rate's name, and how many of the bucket's units the rate is for.
PIECES = {
    "images": ("image", 1),
    "milliseconds": ("second", 1000),
    "characters": ("character", 1_000_000),
    "searches": ("search", 1),
    "pages": ("page", 1),
}
# How a graduated price counts the tokens of a prompt: a cache holds how it begins.
ORDER = ["cached_prompt", "cache_write_1h", "cache_write_5m", "image_prompt", "audio_prompt", "prompt"]


def first(*values):
    return next((value for value in values if value is not None), 0)


def parts(total, *sizes):
    """Parts of a total in turn, each at most what is left; and the rest."""
    out = []
    for size in sizes:
        out.append(min(size, total))
        total -= out[-1]
    return out, total


def openai(u, quirks):
    inside = u.get("prompt_tokens_details") or {}
    outside = u.get("completion_tokens_details") or {}
    read = first(
        inside.get("cached_tokens"),
        u.get("prompt_cache_hit_tokens"),
        u.get("cached_tokens"),
        u.get("cache_read_input_tokens"),
    )
    write = first(
        inside.get("cache_write_tokens"),
        inside.get("cache_creation_tokens"),
        inside.get("cache_creation_input_tokens"),
        u.get("cache_creation_input_tokens"),
    )
    fresh = u["prompt_tokens"] - (read + write if quirks.get("cached") != "beside" else 0)
    (audio, image), text = parts(fresh, inside.get("audio_tokens") or 0, inside.get("image_tokens") or 0)
    thought = first(outside.get("reasoning_tokens"), u.get("reasoning_tokens"))
    beside = quirks.get("reasoning") == "beside"
    if beside and outside.get("reasoning_tokens") is None and u.get("reasoning_tokens") is None:
        thought = max(0, u["total_tokens"] - u["prompt_tokens"] - u["completion_tokens"])
    spoken, drawn = outside.get("audio_tokens") or 0, outside.get("image_tokens") or 0
    said = u["completion_tokens"] - spoken - drawn - (0 if beside else thought)
    return {
        "prompt": text,
        "cached_prompt": read,
        "cache_write_5m": write,
        "audio_prompt": audio,
        "image_prompt": image,
        "completion": said,
        "reasoning": thought,
        "audio_completion": spoken,
        "image_completion": drawn,
        "searches": u.get("num_search_queries") or 0,
    }


def anthropic(u, _):
    split = u.get("cache_creation") or {}
    hour = split.get("ephemeral_1h_input_tokens") or 0
    written = u.get("cache_creation_input_tokens") or 0
    thought = (u.get("output_tokens_details") or {}).get("thinking_tokens") or 0
    return {
        "prompt": u["input_tokens"],
        "cached_prompt": u.get("cache_read_input_tokens") or 0,
        "cache_write_5m": written - hour,
        "cache_write_1h": hour,
        "completion": u["output_tokens"] - thought,
        "reasoning": thought,
        "searches": (u.get("server_tool_use") or {}).get("web_search_requests") or 0,
    }


def gemini(u, _):
    def by(name):
        kinds = {}
        for one in u.get(name) or []:
            kinds[one["modality"]] = kinds.get(one["modality"], 0) + one.get("tokenCount", 0)
        return kinds

    whole, cached, made = by("promptTokensDetails"), by("cacheTokensDetails"), by("candidatesTokensDetails")
    read = u.get("cachedContentTokenCount") or 0
    audio = whole.get("AUDIO", 0) - cached.get("AUDIO", 0)
    image = whole.get("IMAGE", 0) - cached.get("IMAGE", 0)
    return {
        "prompt": u["promptTokenCount"] - read - audio - image + (u.get("toolUsePromptTokenCount") or 0),
        "cached_prompt": read,
        "audio_prompt": audio,
        "image_prompt": image,
        "completion": (u.get("candidatesTokenCount") or 0) - made.get("AUDIO", 0) - made.get("IMAGE", 0),
        "audio_completion": made.get("AUDIO", 0),
        "image_completion": made.get("IMAGE", 0),
        "reasoning": u.get("thoughtsTokenCount") or 0,
    }


def bedrock(u, _):
    hour = sum(one["inputTokens"] for one in u.get("cacheDetails") or [] if one["ttl"] == "1h")
    return {
        "prompt": u["inputTokens"],
        "cached_prompt": u.get("cacheReadInputTokens") or 0,
        "cache_write_5m": (u.get("cacheWriteInputTokens") or 0) - hour,
        "cache_write_1h": hour,
        "completion": u["outputTokens"],
    }


def cohere(u, _):
    billed = u["billed_units"]
    return {"prompt": billed["input_tokens"], "completion": billed["output_tokens"]}


def ollama(u, _):
    return {"prompt": u["prompt_eval_count"], "completion": u.get("eval_count") or 0}


def responses(u, searches):
    inside, outside = u.get("input_tokens_details") or {}, u.get("output_tokens_details") or {}
    read, write = inside.get("cached_tokens") or 0, inside.get("cache_write_tokens") or 0
    (audio, image), text = parts(
        u["input_tokens"] - read - write, inside.get("audio_tokens") or 0, inside.get("image_tokens") or 0
    )
    thought = outside.get("reasoning_tokens") or 0
    return {
        "prompt": text,
        "cached_prompt": read,
        "cache_write_5m": write,
        "audio_prompt": audio,
        "image_prompt": image,
        "completion": u["output_tokens"] - thought,
        "reasoning": thought,
        "searches": searches,
    }


def other(u, endpoint):
    """Embeddings, images, audio, rerank."""
    if "billed_units" in u:
        u = u["billed_units"]
        return {"prompt": u.get("input_tokens", 0), "searches": u.get("search_units", 0)}
    seconds = first(u.get("seconds"), u.get("prompt_audio_seconds"))
    prompt = first(u.get("prompt_tokens"), u.get("input_tokens"), u.get("total_tokens"))
    output = first(u.get("completion_tokens"), u.get("output_tokens"))
    inside = u.get("input_tokens_details") or u.get("input_token_details") or {}
    read = inside.get("cached_tokens") or 0
    (audio, image), text = parts(prompt - read, inside.get("audio_tokens") or 0, inside.get("image_tokens") or 0)
    made = {"image_generations": "image_completion", "image_edits": "image_completion", "speech": "audio_completion"}
    said = (u.get("output_tokens_details") or {}).get("text_tokens") or 0
    kind = made.get(endpoint, "completion")
    buckets = {
        "prompt": text,
        "cached_prompt": read,
        "audio_prompt": audio,
        "image_prompt": image,
        "completion": said,
        "milliseconds": seconds * 1000,
    }
    buckets[kind] = buckets.get(kind, 0) + output - said
    return buckets


DIALECTS = {
    "openai": openai,
    "anthropic": anthropic,
    "anthropic_vertex": anthropic,
    "gemini": gemini,
    "bedrock": bedrock,
    "cohere": cohere,
    "ollama": ollama,
}


def rate(rates, bucket):
    """A kind without a rate of its own costs what it is part of."""
    parent = "prompt" if bucket in PROMPT else "completion"
    return Decimal(rates.get(bucket, rates.get(parent, "0")))


def in_hours(part, moment):
    """Whether a moment lies in a part of the week, which belongs to the day that it begins on."""
    local = moment.astimezone(zoneinfo.ZoneInfo(part.get("time_zone", "UTC")))
    now, start, end = local.strftime("%H:%M"), part.get("from", "00:00"), part.get("to", "00:00")
    late = start >= end and now < start
    begun = local - datetime.timedelta(days=1) if late else local
    inside = now < end if late else start <= now and (now < end or start >= end)
    return inside and DAYS[begun.weekday()] in part.get("days", DAYS)


def price_at(model, tier, moment):
    """The rates of a service tier, and how many times they are to be paid."""
    written = model
    begun = [
        version
        for version in model.get("price_versions", [])
        if datetime.datetime.fromisoformat(version["valid_from"]).astimezone(datetime.timezone.utc) <= moment
    ]
    if begun:
        written = max(begun, key=lambda version: version["valid_from"])
    part = next((part for part in written.get("price_hours", []) if in_hours(part, moment)), None)
    if part:
        if tier or "factor" in part:
            sys.exit(f"{model['id']} has a factor or a tier by the hour: take another model")
        return part, Decimal(1)
    if tier:
        own = written["service_tiers"][tier]
        if "factor" in own:
            return written, Decimal(own["factor"])
        return own, Decimal(1)
    return written, Decimal(1)


def nanos(value):
    """Up to a whole nano-credit."""
    return Decimal(math.ceil(value * 10**9)).scaleb(-9)


def cost(model, tier, moment, buckets):
    written, factor = price_at(model, tier, moment)
    long = sum(buckets.get(bucket, 0) for bucket in PROMPT)
    rates = written["price"]
    steps = [(0, rates)]
    for one in written.get("price_tiers", []):
        if one.get("whole_request", True):
            if long > one["above_prompt_tokens"]:
                rates = one["price"]
        else:
            steps.append((one["above_prompt_tokens"], one["price"]))
    paid = lambda rates, bucket: nanos(rate(rates, bucket) * factor)
    total = Decimal(rates.get("request", "0"))
    if len(steps) > 1:
        at = 0
        for bucket in ORDER:
            for _ in range(buckets.get(bucket, 0)):
                step = [rates for start, rates in steps if at >= start][-1]
                total += paid(step, bucket) / 1_000_000
                at += 1
    else:
        total += sum(buckets.get(bucket, 0) * paid(rates, bucket) for bucket in PROMPT) / 1_000_000
    total += sum(buckets.get(bucket, 0) * paid(rates, bucket) for bucket in OUTPUT) / 1_000_000
    for bucket, (name, units) in PIECES.items():
        total += Decimal(buckets.get(bucket, 0)) * nanos(Decimal(rates.get(name, "0")) * factor) / units
    return max(math.ceil(total * 10**9), math.ceil(Decimal(rates.get("minimum", "0")) * 10**9))


def main():
    table = HERE / "table.txt"
    files = {}
    for path in sorted(PROVIDERS.glob("*.toml")):
        files[path.stem] = tomllib.loads(path.read_text())
    lines = []
    for line in table.read_text().splitlines():
        if not line or line.startswith("#"):
            lines.append(line)
            continue
        named, endpoint, source, usage = line.split(" | ")[:4]
        name, _, own = named.partition(" at ")
        name, _, moment = name.partition(" on ")
        full, _, tier = name.partition("@")
        provider, _, name = full.partition("/")
        file = files[provider]
        model = next(one for one in file["models"] if one["id"] == name)
        if own:
            prompt, completion = own.split("/")
            model = {"price": {"prompt": prompt, "completion": completion}}
        report = json.loads(usage.removeprefix("meta:"))
        kind, _, place = endpoint.partition("@")
        if kind == "responses":
            buckets = responses(report, int(place.removeprefix("searches=") or 0))
        elif kind in ("chat", "completions", "messages"):
            buckets = DIALECTS[file["dialect"]](report, file.get("quirks", {}))
        else:
            buckets = other(report, endpoint)
        assert all(count >= 0 for count in buckets.values()), line
        shown = " ".join(f"{bucket}={count}" for bucket, count in buckets.items() if count)
        charged = cost(model, tier, datetime.datetime.fromisoformat(moment or USUALLY), buckets)
        lines.append(" | ".join([named, endpoint, source, usage, shown, str(charged)]))
    text = "\n".join(lines) + "\n"
    if "--check" in sys.argv[1:]:
        sys.exit(text != table.read_text() and "table.txt differs: run without --check")
    table.write_text(text)


main()
