"""The run as one SVG picture: a panel of bars for each case, shortest is best."""

from html import escape

COLUMNS = 3
PANEL_WIDTH = 400
LABEL_WIDTH = 128
BAR_WIDTH = 190
ROW_HEIGHT = 18
TITLE_HEIGHT = 44
GAP = 18
MARGIN = 24
HEAD_HEIGHT = 54

# Ours stands out; the floor is no server and stays pale.
OURS, RIVAL, FLOOR = "#c2410c", "#5b7c99", "#b8c4ce"
STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2933; }
.title { font-weight: 600; font-size: 13px; }
.unit, .note { fill: #61707d; font-size: 11px; }
.head { font-weight: 700; font-size: 18px; }
.ours { font-weight: 700; }
"""


def _number(value):
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _is_ours(row, result):
    # In cases of Forebay alone, the row that is compared with the other one is the point.
    return row.label.startswith("forebay") or row.label in ("10,000 sites", "1,000 routes")


def _wrap(title, width=52):
    """A title in at most two lines."""
    if len(title) <= width:
        return [title]
    cut = title.rfind(" ", 0, width)
    return [title[:cut], title[cut + 1:]]


def _panel(result, rows, x, y):
    """One case; returns its elements."""
    most = max(row.least for row in rows) or 1
    out = []
    unit = f'<tspan class="unit">({escape(result.unit)})</tspan>'
    lines = [escape(line) for line in _wrap(result.title)]
    if len(lines) == 1:
        lines.append(unit)
    else:
        lines[1] += f" {unit}"
    for i, line in enumerate(lines):
        out.append(f'<text class="title" x="{x}" y="{y + 12 + 15 * i}">{line}</text>')
    top = y + TITLE_HEIGHT
    for i, row in enumerate(rows):
        middle = top + i * ROW_HEIGHT
        length = max(1.0, row.least / most * BAR_WIDTH)
        ours = _is_ours(row, result)
        colour = OURS if ours else FLOOR if row.label == "floor" else RIVAL
        kind = ' class="ours"' if ours else ""
        ratio = result.ratio(row)
        beside = _number(row.least)
        if ratio is not None and row.label != result.rival:
            beside += f" · {ratio:.2f}×"
        out.append(f'<text{kind} x="{x + LABEL_WIDTH - 8}" y="{middle + 12}" text-anchor="end">'
                   f"{escape(row.label)}</text>")
        out.append(f'<rect x="{x + LABEL_WIDTH}" y="{middle + 2}" width="{length:.1f}" '
                   f'height="{ROW_HEIGHT - 5}" rx="2" fill="{colour}"/>')
        out.append(f'<text{kind} x="{x + LABEL_WIDTH + length + 6:.1f}" y="{middle + 12}">'
                   f"{beside}</text>")
    return out


def svg(meta, results):
    """The picture of a run; cases without a figure are left out."""
    panels = []
    for result in results:
        rows = sorted((row for row in result.rows if row.values), key=lambda row: row.least)
        if rows:
            panels.append((result, rows))
    out, y = [], MARGIN + HEAD_HEIGHT
    for start in range(0, len(panels), COLUMNS):
        line = panels[start:start + COLUMNS]
        for i, (result, rows) in enumerate(line):
            out += _panel(result, rows, MARGIN + i * (PANEL_WIDTH + GAP), y)
        y += TITLE_HEIGHT + max(len(rows) for _, rows in line) * ROW_HEIGHT + GAP
    width = 2 * MARGIN + COLUMNS * PANEL_WIDTH + (COLUMNS - 1) * GAP
    m = meta["machine"]
    about = (f"{m['cpu']}, {m['cores']} cores, Linux {m['kernel']}, {meta['date']} · least of "
             f"{meta['options']['rounds']} rounds · × is the ratio to the case's rival · "
             "shorter is better")
    head = [
        f'<text class="head" x="{MARGIN}" y="{MARGIN + 16}">Forebay and its rivals on one core'
        "</text>",
        f'<text class="note" x="{MARGIN}" y="{MARGIN + 34}">{escape(about)}</text>',
    ]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" '
        f'height="{y}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{y}" fill="#ffffff"/>',
        *head, *out, "</svg>"]) + "\n"
