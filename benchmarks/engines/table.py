"""What was measured, as Markdown. A pure function of the JSON: docs are made from it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from engines.workloads import SHARED, WORKLOADS
from intervals import interval

OWN = "parrot"
Data = dict[str, Any]


def text(data: Data) -> str:
    """All tables."""
    about = data["machine"]
    lines = [
        f"{about['processor']}, {about['threads']} threads of {about['cores']} cores, commit {about['commit']},"
        f" {about['date']}, {data['settings']['repeats']} repetitions"
        f"{', a tiny model' if data['settings']['tiny'] else ''}{'' if data['finished'] else '; INTERRUPTED'}",
    ]
    for dtype in data["settings"]["dtype"]:
        lines += ["", f"**{dtype}**, tokens a second (median)", "", *_rates(data, dtype)]
        if ratios := _ratios(data, dtype):
            lines += ["", f"**{dtype}**, parrot ÷ other (median of pairs, 95 % interval)", "", *ratios]
        if own := _shared(data, dtype):
            lines += ["", f"**{dtype}**, {SHARED.title}", "", *own]
    if data.get("attention"):
        lines += ["", "**Attention's error against fp64** (root mean square)", "", *_attention(data["attention"])]
    if data["checks"]:
        lines += ["", "**Greedy text in fp32** against transformers' `generate`", "", *_checks(data)]
    if data["failures"]:
        lines += ["", "**What failed**", ""]
        lines += [f"- {f['engine']}{_at(f)}, {f['dtype']}: {f['why']}" for f in data["failures"]]
    return "\n".join(lines)


def into(page: str, tables: str) -> str:
    """`page` with `tables` between its two marks."""
    before, mark, rest = page.partition("<!-- measured -->\n")
    _, end, after = rest.partition("<!-- end -->\n")
    assert mark, "the page has no place for tables"
    assert end, "the page's place for tables has no end"
    return f"{before}{mark}\n{tables}\n\n{end}{after}"


def values(data: Data, dtype: str, engine: str, work: str) -> dict[int, float]:
    """repetition → tokens a second"""
    return {
        run["repeat"]: run["value"]
        for run in data["runs"]
        if (run["dtype"], run["engine"], run["workload"]) == (dtype, engine, work)
    }


def ratio(above: dict[int, float], below: dict[int, float]) -> tuple[float, float, float] | None:
    """(median, low, high) of the ratios of repetitions that both have."""
    found = [above[repeat] / below[repeat] for repeat in sorted(above.keys() & below.keys())]
    if not found:
        return None
    sure = interval(found)
    return statistics.median(found), sure["low"], sure["high"]


def share_of_bandwidth(data: Data, dtype: str, engine: str) -> float | None:
    """Decode at batch 1, of what it would be if reading the weights were all there is to do."""
    found = values(data, dtype, engine, "decode-1")
    size = data.get("ceilings", {}).get("decode_bytes", {}).get(dtype)
    if not found or not size:
        return None
    return statistics.median(found.values()) * size / float(data["ceilings"]["bytes_per_second"])


def _engines(data: Data, dtype: str) -> list[str]:
    works = {work.key for work in WORKLOADS}
    seen = [r["engine"] for r in data["runs"] if r["dtype"] == dtype and r["workload"] in works]
    seen += [f["engine"] for f in data["failures"] if f["dtype"] == dtype and f["workload"] in works | {None}]
    return sorted(dict.fromkeys(seen), key=lambda name: (not name.startswith(OWN), name))


def _rates(data: Data, dtype: str) -> list[str]:
    rows = []
    for engine in _engines(data, dtype):
        cells = [_cell(data, dtype, engine, work.key) for work in WORKLOADS]
        share = share_of_bandwidth(data, dtype, engine)
        rows.append([_title(data, engine), *cells, "" if share is None else f"{share:.0%}"])
    return _table(["engine", *(work.title for work in WORKLOADS), "batch 1, of memory bandwidth"], rows)


def _cell(data: Data, dtype: str, engine: str, work: str) -> str:
    found = values(data, dtype, engine, work)
    if found:
        return f"{statistics.median(found.values()):,.0f}"
    why = [
        f["why"]
        for f in data["failures"]
        if (f["dtype"], f["engine"]) == (dtype, engine) and f["workload"] in (work, None)
    ]
    return "failed" if why else "not measured"


def _ratios(data: Data, dtype: str) -> list[str]:
    rows = []
    for engine in _engines(data, dtype):
        pairs = [ratio(values(data, dtype, OWN, work.key), values(data, dtype, engine, work.key)) for work in WORKLOADS]
        if engine != OWN and any(pairs):
            rows.append([engine, *("" if p is None else f"{p[0]:.2f} [{p[1]:.2f}, {p[2]:.2f}]" for p in pairs)])
    return _table(["", *(work.title for work in WORKLOADS)], rows) if rows else []


def _shared(data: Data, dtype: str) -> list[str]:
    rows = []
    tried = [r for r in (*data["runs"], *data["failures"]) if r["dtype"] == dtype and r["workload"] == SHARED.key]
    for way in dict.fromkeys(r["engine"] for r in tried):
        own = values(data, dtype, way, SHARED.key)
        if not own:
            rows.append([way, "failed", "", ""])
            continue
        p = ratio(values(data, dtype, "shared", SHARED.key), own)
        took = statistics.median(r["seconds"] for r in tried if r["engine"] == way and "seconds" in r)
        times = "" if p is None or way == "shared" else f"{p[0]:.2f} [{p[1]:.2f}, {p[2]:.2f}]"
        rows.append([way, f"{statistics.median(own.values()):,.0f}", f"{took:.1f}", times])
    head = ["", "decode, tokens a second", "seconds, prefill included", "shared ÷ this (decode)"]
    return _table(head, rows) if rows else []


def _attention(found: Sequence[dict[str, Any]]) -> list[str]:
    rows = [
        [r["dtype"], r["what"], f"{r['ours_rms']:.2e}", f"{r['sdpa_rms']:.2e}", f"{r['ours_rms'] / r['sdpa_rms']:.2f}"]
        for r in found
    ]
    return _table(["", "", "ours", "torch SDPA", "ours ÷ SDPA"], rows)


def _checks(data: Data) -> list[str]:
    rows = [
        [engine, "the same" if c["same"] else "ANOTHER TEXT", str(c["tokens"]), c["difference"] or ""]
        for engine, c in data["checks"].items()
    ]
    return _table(["engine", "text", "tokens compared", ""], rows)


def _title(data: Data, engine: str) -> str:
    version = data["versions"].get(engine, "")
    other = engine in data["checks"] and not data["checks"][engine]["same"]
    return " ".join(filter(None, (engine, "" if engine == OWN else version, "(ANOTHER TEXT)" if other else "")))


def _at(failure: dict[str, Any]) -> str:
    return f", {failure['workload']}" if failure["workload"] else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
