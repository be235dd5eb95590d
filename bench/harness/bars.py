"""What Forebay is to reach, case by case, and whether a run shows it.

A bar never fails a run: it is printed as met or not met, with the figure.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass
class Bar:
    """A limit on a ratio to a rival, on a value, or on a named figure of a case."""

    cases: str               # pattern of case names
    limit: float
    rival: str = ""          # ratio: to this label …
    row: str = "forebay"     # … of this one
    figure: str = ""         # or: the figure of this name
    below: bool = False      # strictly below the limit
    least: bool = False      # at least the limit

    def judge(self, result):
        """(sentence, met) for a result this bar is for, or None if a figure is missing."""
        word = "≥" if self.least else "<" if self.below else "≤"
        if self.figure:
            value = result.figures.get(self.figure)
            what = self.figure
        else:
            row = result.row(self.row)
            if not row:
                return None
            if self.rival:
                rival = result.row(self.rival)
                if not rival:
                    return None
                value = row.least / rival.least if rival.least else float("inf")
                what = f"{self.row} ÷ {self.rival}"
            else:
                value = row.least
                what = f"{self.row}, {result.unit}"
        if value is None:
            return None
        if self.least:
            met = value >= self.limit
        else:
            met = value < self.limit if self.below else value <= self.limit
        digits = 1 if abs(value) >= 100 else 3
        return f"{what}: {value:.{digits}f} ({word} {self.limit:.5g})", met


def _with_variants(case, *args, **kwargs):
    return [Bar(name, *args, **kwargs) for name in (case, f"{case}-*")]


BARS = [
    *_with_variants("static-1k", 0.70, "nginx"),
    *_with_variants("static-1k", 1.0, "h2o", below=True),
    *_with_variants("static-64k", 0.75, "nginx"),
    *_with_variants("static-64k", 1.0, "lighttpd", below=True),
    *_with_variants("static-1m", 1.05, "lighttpd"),
    *_with_variants("pipelined-1k", 0.33, "nginx"),
    *_with_variants("proxy-1k", 0.90, "nginx"),
    *_with_variants("proxy-64k", 0.85, "haproxy"),
    *_with_variants("proxy-1m", 0.75, "haproxy"),
    *_with_variants("cache-1k", 0.60, "nginx"),
    *_with_variants("cache-1k", 1.0, "haproxy", below=True),
    *_with_variants("cache-64k", 0.70, "haproxy"),
    *_with_variants("cache-1m", 1.05, "varnish"),
    Bar("cache-miss-1k", 1.0, "nginx"),
    Bar("cache-miss-1k", 0.01, figure="forebay: not kept over a restart"),
    Bar("cache-disk-64k", 1.0, "nginx"),
    Bar("cache-disk-64k", 1.0, figure="forebay: p99, times that of nginx", below=True),
    Bar("cache-rules", 1.05, "no rules", row="100,000 rules"),
    *_with_variants("idle", 1.25 * 1024),
    Bar("latency", 0.1, figure="forebay: mean above direct, ms"),
    Bar("latency", 0.5, figure="forebay: p99 above direct, ms"),
    Bar("latency", 0, figure="forebay: failed requests"),
    Bar("latency", 1.0, figure="forebay: memory growth, MiB"),
    Bar("workers-*", 1.1, figure="forebay: two workers, times one"),
    Bar("sites-10000", 1.03, "one site", row="10,000 sites"),
    Bar("sites-10000", 1.0, figure="forebay check of 10,000 sites, s", below=True),
    Bar("routes-1000", 1.03, "one route", row="1,000 routes"),
    Bar("gzip-64k", 1.0, "nginx"),
    Bar("php-hello", 0.85, "nginx"),
    *_with_variants("fastcgi-app", 1 / 3, "php-fpm"),
    *_with_variants("cache-php", 0.85, "nginx"),
    Bar("cgi-processes", 10, figure="processes: requests/s, times those of cgi", least=True),
    Bar("processes-hello", 12_000, figure="requests/s", least=True),
    Bar("processes-hello", 1.0, figure="connecting, p50, ms", below=True),
    Bar("processes-hello", 2.0, figure="connecting, p99, ms", below=True),
    Bar("processes-hello", 2.0, figure="p99 at 12,000 requests/s, ms", below=True),
    Bar("cgi-hello", 1.2, "fork"),
    Bar("cgi-hello", 1.2, "vfork"),
    Bar("access-log", 1.08, "no log", row="log and metrics"),
    Bar("limit-clients", 0.5, figure="limit: added to a request, µs"),
    Bar("limit-clients", 64, figure="limit: memory more than without, MiB"),
    Bar("slow-*", 1.5, figure="forebay: p99 beside slow readers, times that alone"),
    Bar("slow-*", 1.0, figure="forebay: p99 added by slow readers, ms"),
]


def judge(result):
    """[(sentence, met)] of all bars that this result can answer."""
    found = [bar.judge(result) for bar in BARS if fnmatchcase(result.name, bar.cases)]
    return [verdict for verdict in found if verdict]
