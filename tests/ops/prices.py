"""Compares the built-in provider files with the price tables they were made from, bucket by bucket.

Started with the folder of the wheels (`cargo xtask prices --check` fetches them). Its own reading of
tables and files, in decimal arithmetic, shares nothing with the importer. Standard library only.
Last line: "N passed, M failed".
"""

import ast
import copy
import datetime
import json
import re
import sys
import tomllib
import zipfile
from decimal import Decimal, getcontext
from pathlib import Path
from zoneinfo import ZoneInfo

getcontext().prec = 60
ROOT = Path(__file__).resolve().parents[2]
PLAN = tomllib.loads((ROOT / "crates/price-tables/prices.toml").read_text())
MILLION = Decimal(1_000_000)
NANO = Decimal("0.000000001")
# A bucket without a price of its own costs what another does.
FALLBACK = {
    "cached_prompt": "prompt", "cache_write_5m": "prompt", "cache_write_1h": "prompt", "audio_prompt": "prompt",
    "image_prompt": "prompt", "reasoning": "completion", "audio_completion": "completion",
    "image_completion": "completion",
}
PIECES = ("image", "second", "character", "search", "request")
BUCKETS = ("prompt", "completion", *FALLBACK, *PIECES)
# Dollars for one token in litellm's table, by our names.
TOKENS = {
    "prompt": "input_cost_per_token", "completion": "output_cost_per_token",
    "cached_prompt": "cache_read_input_token_cost", "cache_write_5m": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr", "audio_prompt": "input_cost_per_audio_token",
    "audio_completion": "output_cost_per_audio_token", "reasoning": "output_cost_per_reasoning_token",
    "image_prompt": "input_cost_per_image_token",
}
# Dollars for one piece, and how many of them our price is for.
BY_PIECE = {
    "image": ("input_cost_per_image", 1), "second": ("input_cost_per_second", 1),
    "character": ("input_cost_per_character", 1_000_000), "search": ("input_cost_per_query", 1),
}
ENDINGS = {"batch": "_batches", "flex": "_flex", "priority": "_priority"}
# Dollars for a million in the table of genai-prices.
PER_MILLION = {
    "prompt": "input_mtok", "completion": "output_mtok", "cached_prompt": "cache_read_mtok",
    "cache_write_5m": "cache_write_mtok", "cache_write_1h": "cache_write_1h_mtok", "audio_prompt": "input_audio_mtok",
    "audio_completion": "output_audio_mtok", "reasoning": "output_reasoning_mtok", "image_prompt": "input_image_mtok",
}


class Amount:
    """An amount of a table: its value for our unit, and whether the table wrote it as a float prints it."""

    def __init__(self, raw, times):
        self.exact = Decimal(raw) * times
        digits = len(Decimal(raw).normalize().as_tuple().digits)
        self.is_float = digits >= 15

    def __bool__(self):
        return self.exact != 0

    def is_written_as(self, text):
        found = Decimal(text)
        if found == self.exact:
            return True
        # 0.20000000000000001 is 0.2, and a third is rounded up to a nano-credit; nothing else is moved.
        return self.is_float and abs(found - self.exact) <= self.exact / 10**15 + NANO


def pattern(globs):
    return re.compile("|".join(".*".join(map(re.escape, glob.split("*"))) for glob in globs) or r"(?!)", re.S)


# --- litellm ------------------------------------------------------------------------------------


def amounts(row, suffix=""):
    found = {}
    for bucket, member in TOKENS.items():
        raw = row.get(member + suffix)
        if raw is not None:
            found[bucket] = Amount(raw, MILLION)
    return found


def known(prices):
    """Without zeros, which tables write for "unknown" too, and without what costs as the kind it is part of."""
    prices = {bucket: amount for bucket, amount in prices.items() if amount}
    for bucket in "reasoning", "image_prompt":
        whole = prices.get(FALLBACK[bucket])
        if bucket in prices and whole and prices[bucket].exact == whole.exact:
            del prices[bucket]
    return prices


def thresholds(row):
    ends = (re.fullmatch(r"input_cost_per_token_above_(\d+)k_tokens", member) for member in row)
    return {int(end[1]) * 1000: f"_above_{end[1]}k_tokens" for end in ends if end}


def litellm_chat(row):
    """The plain price, tiers by prompt length, and service tiers of a chat model."""
    base, tiers = amounts(row), {}
    for above, suffix in thresholds(row).items():
        tiers[above] = amounts(row, suffix)
    for part in row.get("tiered_pricing") or []:
        start = int(Decimal(part["range"][0]))
        if start == 0:
            base |= amounts(part)
        else:
            tiers[start] = amounts(part)
    # What a tier does not name costs there what it costs below.
    tiers = {above: base | own for above, own in tiers.items()}
    base, tiers = known(base), {above: known(own) for above, own in tiers.items()}
    return base, tiers, litellm_service(row, base, tiers)


def litellm_service(row, base, tiers):
    """Service tiers by name, each with its tiers by prompt length."""
    service = {}
    for name, ending in ENDINGS.items():
        own = known(amounts(row, ending))
        if not ("prompt" in own and "completion" in own):
            continue
        # Where a tier is cheaper, the plain price of what it leaves out is too high at most.
        fill = (lambda plain: {}) if name == "priority" else (lambda plain: plain)
        long = {}
        for above, plain in tiers.items():
            suffix = thresholds(row).get(above)
            there = known(amounts(row, suffix + ending)) if suffix else {}
            complete = "prompt" in there and "completion" in there
            long[above] = fill(plain) | there if complete else plain
        service[name] = (fill(base) | own, long)
    return service


def litellm_other(row, endpoints):
    """The price of a model that does not chat: by tokens where the row prices what it reads and makes."""
    tokens = amounts(row)
    if row.get("output_cost_per_image_token") is not None:
        tokens["image_completion"] = Amount(row["output_cost_per_image_token"], MILLION)
    tokens = known(tokens)
    makes = not {"embeddings", "rerank"} & set(endpoints)
    made = {"completion", "audio_completion", "image_completion"} & set(tokens)
    if "prompt" in tokens and (made or not makes):
        return {"completion": Amount("0", 1)} | tokens
    pieces = {bucket: Amount(row[member], times) for bucket, (member, times) in BY_PIECE.items() if row.get(member)}
    return known(pieces) or tokens


def litellm_mode(row):
    """What a row's model does: "" for chats, None for what is not offered."""
    paths = row.get("supported_endpoints")
    mode = row.get("mode")
    if mode == "chat":
        return "" if paths is None or "/v1/chat/completions" in paths else None
    names = {"completion": "completions", "embedding": "embeddings", "moderation": "moderations", "rerank": "rerank",
             "image_generation": "image_generations", "audio_speech": "speech",
             "audio_transcription": "transcriptions"}
    return names.get(mode)


# --- hours ---------------------------------------------------------------------------------------
#
# Table and file say differently when an hour is cheaper, so both are asked about every half hour of a week and the
# minute before it.

MONDAY = datetime.datetime(2026, 11, 23, tzinfo=datetime.timezone.utc)
MOMENTS = [
    MONDAY + datetime.timedelta(minutes=30 * step - early) for step in range(7 * 48 + 1) for early in (1, 0)
]
DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def within(moment, window):
    start, end = (datetime.time.fromisoformat(text) for text in window.split("-"))
    now = moment.time()
    return start <= now < end if start < end else now >= start or now < end


def is_off_peak(block, moment):
    """By the table: hours by UTC, on days of the calendar that it names."""
    calendar = ZoneInfo(block.get("weekday_timezone") or "UTC")
    rules = [{"hours_utc": block.get("hours_utc") or []}, *(block.get("windows") or [])]
    for rule in rules:
        windows = rule["hours_utc"]
        windows = [windows] if isinstance(windows, str) else windows
        days = [int(day) for day in rule.get("weekdays") or range(1, 8)]
        if moment.astimezone(calendar).isoweekday() in days and any(within(moment, one) for one in windows):
            return True
    return False


def part_at(parts, moment):
    """By the file: the first part of the week that fits, each of the day that it begins on."""
    for part in parts:
        local = moment.astimezone(ZoneInfo(part.get("time_zone", "UTC")))
        days, now = part.get("days", DAYS), f"{local:%H:%M}"
        start, end = part.get("from", "00:00"), part.get("to", "00:00")
        begun = local if start < end or now >= start else local - datetime.timedelta(days=1)
        inside = start <= now < end if start < end else now >= start or now < end
        if inside and DAYS[begun.weekday()] in days:
            return part
    return None


def by_hours(where, written, expected):
    """The file's hours beside those of the table: (block, the price that holds in it)."""
    parts = written.get("price_hours", [])
    if not expected:
        return [f"{where}: the table has no hours"] if parts else []
    block, price = expected
    problems = set()
    for moment in MOMENTS:
        part, cheap = part_at(parts, moment), is_off_peak(block, moment)
        if (part is not None) != cheap:
            problems.add(f"{where}: at {moment:%a %H:%M} UTC the table says {'off-peak' if cheap else 'peak'}")
        elif cheap:
            problems |= set(differences(f"{where} off-peak", part["price"], price))
    return sorted(problems)


def litellm_hours(row, base):
    block = row.get("off_peak_pricing")
    return (block, known(base | amounts(block))) if block else None


# --- genai-prices -------------------------------------------------------------------------------


def genai_amount(node, above):
    if node.func.id == "TieredPrices":
        parts = {word.arg: word.value for word in node.keywords}
        chosen = parts["base"]
        for tier in parts["tiers"].elts:
            words = {word.arg: word.value for word in tier.keywords}
            if above and words["start"].value <= above:
                chosen = words["price"]
        node = chosen
    return node.args[0].value


def genai_price(node, above):
    words = {word.arg: word.value for word in node.keywords}
    prices = {
        bucket: Amount(genai_amount(words[member], above), 1)
        for bucket, member in PER_MILLION.items() if member in words
    }
    if "requests_kcount" in words:
        prices["request"] = Amount(genai_amount(words["requests_kcount"], above), Decimal("0.001"))
    return prices


def genai_starts(node):
    return sorted({
        word.value.value
        for one in ast.walk(node) if isinstance(one, ast.Call) and getattr(one.func, "id", "") == "Tier"
        for word in one.keywords if word.arg == "start"
    })


def genai_of_day(node, day):
    """The price that holds on a day: of those that have begun the last, else the one without a beginning."""
    if isinstance(node, ast.Call):
        return node
    chosen = None
    for entry in node.elts:
        words = {word.arg: word.value for word in entry.keywords}
        constraint = words.get("constraint")
        if not isinstance(constraint, ast.Call):
            chosen = chosen or words["prices"]
            continue
        assert constraint.func.id == "StartDateConstraint", "prices by the hour"
        start = constraint.keywords[0].value
        if "{:04}-{:02}-{:02}".format(*(part.value for part in start.args)) <= day:
            chosen = words["prices"]
    return chosen


def genai_rows(text):
    """{(provider, id): (prices as written, whether the table says how much fits)}"""
    module = ast.parse(text)
    lists = (one.value for one in module.body if isinstance(one, ast.AnnAssign) and one.target.id == "providers")
    rows = {}
    for provider in next(lists).elts:
        words = {word.arg: word.value for word in provider.keywords}
        for model in words["models"].elts:
            about = {word.arg: word.value for word in model.keywords}
            rows[words["id"].value, about["id"].value] = about.get("prices"), "context_window" in about
    return rows


def genai_chat(prices, day):
    """The plain price and the tiers by prompt length."""
    price = genai_of_day(prices, day) if prices is not None else None
    if price is None:
        return {}, {}
    base = genai_price(price, 0)
    return known(base), {above: known(base | genai_price(price, above)) for above in genai_starts(price)}


# --- the comparison -----------------------------------------------------------------------------


def charged(prices, bucket):
    """What a bucket costs: its own price, else that of the kind it is part of."""
    return prices.get(bucket) or prices.get(FALLBACK.get(bucket)) or "0"


def differences(where, written, expected):
    """What a price of a file says otherwise than the table, for every bucket."""
    problems = []
    for bucket in BUCKETS:
        found, right = charged(written, bucket), charged(expected, bucket)
        right = right if isinstance(right, Amount) else Amount("0", 1)
        if not right.is_written_as(found):
            problems.append(f"{where}: {bucket} is {found}, the table gives {right.exact.normalize():f}")
    return problems


def by_length(where, written, expected):
    """The same for a price and its tiers: {"price", "price_tiers"} beside (price, {above: price})."""
    base, tiers = expected
    problems = differences(where, written["price"], base)
    found = {tier["above_prompt_tokens"]: tier for tier in written.get("price_tiers", [])}
    problems += [f"{where}: the table has no tier above {above}" for above in sorted(set(found) - set(tiers))]
    for above, price in tiers.items():
        # Left out where it changes nothing.
        tier = found.get(above, {"price": written["price"]})
        if not tier.get("whole_request", True):
            problems.append(f"{where}: the tier above {above} is not for the whole request")
        problems += differences(f"{where} above {above}", tier["price"], price)
    return problems


def compare(where, model, base, tiers, service, hours):
    problems = by_length(where, model, (base, tiers)) + by_hours(where, model, hours)
    written = model.get("service_tiers", {})
    problems += [f"{where}: the table has no tier {name}" for name in sorted(set(written) - set(service))]
    for name, own in service.items():
        problems += by_length(f"{where} {name}", written.get(name, model), own)
    return problems


class Tables:
    def __init__(self, folder):
        self.day = PLAN["taken"]
        texts = {}
        for name, table in PLAN["tables"].items():
            with zipfile.ZipFile(folder / table["wheel"]) as wheel:
                texts[name] = wheel.read(table["member"]).decode()
        self.litellm = json.loads(texts["litellm"], parse_float=str, parse_int=str)
        self.genai = genai_rows(texts["genai-prices"])

    def expected(self, planned):
        """{id: (endpoints or "", base, tiers, service, hours)} of the rows that belong to a file."""
        takes, leaves = pattern(planned.get("only") or ["*"]), pattern(planned.get("leave_out", []))
        free, found = pattern(planned.get("free", [])), {}

        def wanted(model):
            return takes.fullmatch(model) and not leaves.fullmatch(model)

        for source in planned["from"]:
            prefix, suffix = source.get("prefix", ""), source.get("suffix", "")
            if planned["table"] == "genai-prices":
                for (provider, name), (prices, window) in self.genai.items():
                    model = name.removeprefix(prefix) + suffix
                    if provider == source["key"] and name.startswith(prefix) and wanted(model) and window:
                        found[model] = "", *genai_chat(prices, self.day), {}, None
                continue
            for name, row in self.litellm.items():
                if row.get("litellm_provider") != source["key"] or not name.startswith(prefix):
                    continue
                model, does = name.removeprefix(prefix) + suffix, litellm_mode(row)
                offered = does == "" or does in planned.get("offers", [])
                ended = (row.get("deprecation_date") or "9") < self.day
                if not wanted(model) or not offered or ended:
                    continue
                if planned.get("sourced_only") and "source" not in row:
                    continue
                if does and not free.fullmatch(model):
                    price = litellm_other(row, [does])
                    found[model] = does, price, {}, litellm_service(row, price, {}), None
                    continue
                if free.fullmatch(model):
                    found[model] = does, {}, {}, {}, None
                    continue
                base, tiers, service = litellm_chat(row)
                window = row.get("max_input_tokens") or row.get("max_tokens")
                fee = (row.get("search_context_cost_per_query") or {}).get("search_context_size_low")
                for wish, bucket in ("search_fee", "request"), ("search_price", "search"):
                    if planned.get(wish) and fee:
                        for prices in base, *tiers.values(), *(p for own, long in service.values()
                                                               for p in (own, *long.values())):
                            prices[bucket] = Amount(fee, 1)
                if window:
                    found[model] = "", base, tiers, service, litellm_hours(row, base)
        return found

    def problems(self, planned, models):
        found, problems = self.expected(planned), []
        written = {model["id"]: model for model in models}
        for name, (does, base, tiers, service, hours) in found.items():
            sold = bool(base) if does else "prompt" in base and "completion" in base
            if name not in written:
                if sold and not too_fine(base):
                    problems.append(f"{name}: the table prices it, the file leaves it out")
            elif not base and any(Decimal(amount) for amount in written[name]["price"].values()):
                problems.append(f"{name}: a price that the table does not have")
            else:
                problems += compare(name, written[name], base, tiers, service, hours)
        return problems + [f"{name}: the table has no such row" for name in sorted(set(written) - set(found))]


def too_fine(prices):
    return any(not amount.is_float and amount.exact % NANO for amount in prices.values())


def buckets(models):
    """How many amounts the files of these models have."""
    def count(one):
        if isinstance(one, dict):
            return sum(count(value) for key, value in one.items() if key not in ("from", "to", "time_zone", "days"))
        if isinstance(one, list):
            return sum(map(count, one))
        return int(isinstance(one, str))
    return sum(count([model.get(key) for key in ("price", "price_tiers", "price_hours", "service_tiers")]) for model in models)


def altered(models):
    """Copies of the models with one amount each that is wrong: every kind of place once."""
    def change(place):
        copied = copy.deepcopy(models)
        for model in copied:
            prices = place(model)
            if prices and any(Decimal(amount) for amount in prices.values()):
                bucket = sorted(name for name, amount in prices.items() if Decimal(amount))[-1]
                prices[bucket] = str(Decimal(prices[bucket]) + NANO)
                return copied
        return None
    places = [
        lambda model: model["price"],
        lambda model: next(iter(model.get("price_tiers", [])), {}).get("price"),
        lambda model: next(iter(model.get("service_tiers", {}).values()), {}).get("price"),
        lambda model: next(iter(model.get("price_hours", [])), {}).get("price"),
    ]
    return [copied for copied in [*map(change, places), *altered_hours(models)] if copied]


def altered_hours(models):
    """Copies with one part of the week that is wrong: a day less, other clocks, an hour later."""
    for change in (
        lambda part: part.get("days") and part["days"].pop(),
        lambda part: part.update(time_zone="America/Lima" if "time_zone" in part else "Asia/Shanghai"),
        lambda part: "from" in part and part.update({"from": "00:30"}),
    ):
        copied = copy.deepcopy(models)
        parts = next((model["price_hours"] for model in copied if model.get("price_hours")), None)
        if parts:
            change(parts[0])
            yield copied


def main():
    tables = Tables(Path(sys.argv[1]))
    passed = failed = models_all = buckets_all = 0
    for planned in PLAN["providers"]:
        path = ROOT / "providers" / f"{planned['file']}.toml"
        models = tomllib.loads(path.read_text())["models"]
        problems = tables.problems(planned, models)
        # A check that cannot fail is none: one nano-credit too much must be seen.
        for copied in altered(models):
            if len(tables.problems(planned, copied)) == len(problems):
                problems.append("an altered price was not seen")
        models_all += len(models)
        buckets_all += buckets(models)
        if problems:
            failed += 1
            print(f"FAIL {planned['file']}")
            for problem in problems:
                print(f"     {problem}")
        else:
            passed += 1
            print(f"ok   {planned['file']}: {len(models)} models, {buckets(models)} amounts")
    print(f"{models_all} models, {buckets_all} amounts compared with their tables")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


sys.exit(main())
