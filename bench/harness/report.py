"""Writing results down: the table on the terminal, Markdown and JSON."""

import json
import os
import platform
from dataclasses import asdict
from datetime import date

from . import bars, chart

BAR_WIDTH = 24
FOREIGN_WARNING = 0.05


def number(value):
    """Three significant digits or so, without an exponent."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def size(value):
    """Bytes for people."""
    for unit, of in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(value) >= of:
            return f"{value / of:.1f} {unit}"
    return f"{value:.0f} B"


EXTRAS = {
    "rate": ("requests/s", lambda v: f"{v:,.0f}"),
    "busy": ("core used", lambda v: f"{v:.0%}"),
    "foreign": ("others", lambda v: f"{v:.0%}"),
    "before": ("Pss before", size),
    "after": ("Pss after", size),
    "left per request": ("left per request", lambda v: f"{v:.2f} B"),
    "in all": ("Pss in all", size),
    "mean": ("mean", number),
    "deviation": ("deviation", number),
    "p50": ("p50", number),
    "p99": ("p99", number),
    "alone": ("p99 alone", number),
    "grown": ("grown", size),
    "resident": ("in memory before", lambda v: f"{v:.1%}"),
    "on disk": ("on disk of each", size),
    "kept": ("kept", lambda v: f"{v:.0%}"),
}


ERRORS = {
    "status": "status other than 200",
    "length": "wrong length",
    "head": "not understood",
    "broken": "connection broken",
    "refused": "connection refused",
    "timeout": "no answer",
    "lost": "connection not kept",
    "missed": "asked of the origin",
    "hit": "not asked of the origin",
    "resident": "not from the disk",
}


def columns(result):
    """Headings and cells of a result's table, as text."""
    extras = [name for name in EXTRAS if any(name in row.extra for row in result.rows)]
    rounds = max((len(row.values) for row in result.rows), default=0)
    failed = any(row.failed for row in result.rows)
    headings = ["", result.unit]
    if rounds > 1:
        headings.append("spread")
    if result.rival:
        headings.append(f"÷ {result.rival}")
    headings += [EXTRAS[name][0] for name in extras] + (["failed"] if failed else [])
    lines = []
    for row in result.rows:
        if not row.values:
            continue
        ratio = result.ratio(row)
        cells = [row.label, number(row.least)]
        if rounds > 1:
            cells.append(f"{row.spread:.0%}" if row.spread < 10 else f"{row.spread:.0f} ×")
        if result.rival:
            cells.append("" if ratio is None else f"{ratio:.2f}")
        cells += [EXTRAS[name][1](row.extra[name]) if name in row.extra else "" for name in extras]
        lines.append(cells + ([str(row.failed)] if failed else []))
    return headings, lines


def failures(result):
    """A sentence for each server that did not answer everything rightly."""
    return [f"{row.label}: " + ", ".join(f"{count} × {ERRORS.get(kind, kind)}"
                                         for kind, count in row.errors.items()) + "."
            for row in result.rows if row.errors]


def text(result):
    """The result for a terminal: a table whose last column is a bar chart."""
    headings, lines = columns(result)
    rows = [row for row in result.rows if row.values]
    most = max((row.least for row in rows), default=0)
    widths = [max(len(line[i]) for line in [headings, *lines]) for i in range(len(headings))]

    def format_line(cells, bar=""):
        first = cells[0].ljust(widths[0])
        rest = "  ".join(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:]))
        return f"  {first}  {rest}  {bar}".rstrip()

    out = [format_line(headings)]
    for row, cells in zip(rows, lines):
        eighths = round(row.least / most * BAR_WIDTH * 8) if most else 0
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        out.append(format_line(cells, bar))
    out += [f"  {name}: {number(value)}" for name, value in result.figures.items()]
    out += [f"  {note}" for note in [*failures(result), *result.notes]]
    out += [f"  {'met    ' if met else 'NOT MET'}  {what}" for what, met in bars.judge(result)]
    return "\n".join(out)


def machine():
    """What a reader must know of this machine."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) * 1024
    system = "unknown"
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            for line in file:
                if line.startswith("PRETTY_NAME="):
                    system = line.split("=", 1)[1].strip().strip('"')
    except FileNotFoundError:
        pass
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(),
            "architecture": platform.machine(), "memory_bytes": memory, "system": system}


def _table(headings, lines):
    out = ["| " + " | ".join(headings) + " |", "|" + "---|" + "---:|" * (len(headings) - 1)]
    out += ["| " + " | ".join(line) + " |" for line in lines]
    return out


def _disturbed(results):
    """A sentence on rows whose best round was disturbed by other programs, or nothing."""
    names = [f"{result.name}/{row.label} ({row.extra['foreign']:.0%})" for result in results
             for row in result.rows if row.extra.get("foreign", 0) > FOREIGN_WARNING]
    if not names:
        return []
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} others" if len(names) > 6 else "")
    return ["", f"More than {FOREIGN_WARNING:.0%} of the server's core went to other programs even "
                f"in the best round of {shown}: measure again on an idle machine."]


def markdown(meta, results, svg_name):
    """The whole run as a page."""
    m = meta["machine"]
    versions = ", ".join(f"{name} {text}".strip() for name, text in meta["versions"].items())
    out = [
        f"# {meta['name']}, {meta['date']}", "",
        f"{m['cpu']}, {m['cores']} cores, {m['memory_bytes'] / (1 << 30):.1f} GiB; "
        f"{m['system']}, Linux {m['kernel']}, {m['architecture']}.", "",
        f"{versions}; at commit {meta['revision'] or 'unknown'}.", "",
        f"Server on core {meta['cores']['server']}, load on {meta['cores']['load']}, origins on "
        f"{meta['cores']['origin']}; {meta['options']['connections']} connections; least of "
        f"{meta['options']['rounds']} interleaved rounds of {meta['options']['seconds']:g} s; load "
        f"by {meta['load']}. How to read this: `bench/README.md`.", "",
        "## What Forebay is to reach", "",
    ]
    verdicts = [(result, what, met) for result in results for what, met in bars.judge(result)]
    met_count = sum(met for _, _, met in verdicts)
    if verdicts:
        out += [f"{met_count} of {len(verdicts)} met.", ""]
        out += _table(["case", "figure (bar)", "met"],
                      [[r.name, what, "yes" if met else "**no**"] for r, what, met in verdicts])
    else:
        out.append("No case of this run has a bar that it could answer.")
    out += _disturbed(results)
    out += ["", f"![Least value of each server in each case]({svg_name})", ""]
    out += head_cost(results)
    for result in results:
        out += [f"## {result.title}", "", f"`{result.name}`", ""]
        headings, lines = columns(result)
        out += _table(headings, lines) if lines else ["Nothing was measured."]
        out += ["", *[f"* {name}: {number(value)}" for name, value in result.figures.items()]]
        out += [*failures(result), *result.notes, ""]
    return "\n".join(out).rstrip() + "\n"


def head_cost(results):
    """What a browser's head costs each server beyond a bare one, where both were measured."""
    by_name = {result.name: result for result in results}
    pairs = [(by_name[name], by_name[f"{name}-browser"]) for name in
             ("static-1k", "pipelined-1k", "proxy-1k")
             if name in by_name and f"{name}-browser" in by_name]
    labels = [row.label for row in pairs[0][0].rows if row.values] if pairs else []
    lines = []
    for label in labels:
        cells = [label]
        for bare, browser in pairs:
            a, b = bare.row(label), browser.row(label)
            cells.append(f"{b.least - a.least:+.2f}" if a and b else "")
        lines.append(cells)
    if not lines:
        return []
    headings = ["", *[bare.name for bare, _ in pairs]]
    return ["## The cost of a browser's head", "",
            "µs per request that 15 fields (about 800 bytes) add to those with a bare head.", "",
            *_table(headings, lines), ""]


def _plain(result):
    """A result as it stands in the JSON file."""
    plain = asdict(result)
    for row, entry in zip(result.rows, plain["rows"]):
        if row.values:
            entry.update(least=row.least, spread=row.spread, ratio=result.ratio(row))
    plain["bars"] = [{"what": what, "met": met} for what, met in bars.judge(result)]
    return plain


def write(directory, meta, results):
    """Writes the three files; returns the path of the page. Nothing that is there is replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    base, number_of = f"{meta['date']}-{meta['name']}", 1
    stem = base
    while (directory / f"{stem}.md").exists() or (directory / f"{stem}.json").exists():
        number_of += 1
        stem = f"{base}-{number_of}"
    data = {**meta, "results": [_plain(result) for result in results]}
    (directory / f"{stem}.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    (directory / f"{stem}.svg").write_text(chart.svg(meta, results))
    page = directory / f"{stem}.md"
    page.write_text(markdown(meta, results, f"{stem}.svg"))
    return page


def today():
    return date.today().isoformat()
