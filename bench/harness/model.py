"""What a case measures and what comes out of it."""

from dataclasses import dataclass, field


@dataclass
class Row:
    """One server's figures in one case."""

    label: str
    values: list = field(default_factory=list)  # one per round, in the case's unit
    errors: dict = field(default_factory=dict)  # requests without a right answer, by kind
    extra: dict = field(default_factory=dict)   # further figures, by the heading they stand under

    def blame(self, *reports, lost=0):
        """Adds the errors of the load's reports, and connections that were lost meanwhile."""
        for report in reports:
            for kind, count in report["errors"].items():
                if count:
                    self.errors[kind] = self.errors.get(kind, 0) + count
        if lost:
            self.errors["lost"] = self.errors.get("lost", 0) + lost

    @property
    def failed(self):
        return sum(self.errors.values())

    @property
    def least(self):
        return min(self.values)

    @property
    def spread(self):
        """How far the largest value lies above the least, as a share of it."""
        return max(self.values) / self.least - 1 if self.least else 0.0


@dataclass
class Result:
    """All servers' figures in one case."""

    name: str
    title: str
    unit: str
    rival: str = ""                               # the label that ratios refer to
    rows: list = field(default_factory=list)
    figures: dict = field(default_factory=dict)   # what bars ask beyond the rows, by name
    notes: list = field(default_factory=list)

    def row(self, label):
        return next((row for row in self.rows if row.label == label and row.values), None)

    def ratio(self, row):
        rival = self.row(self.rival)
        return row.least / rival.least if rival and rival.least else None


@dataclass
class Cores:
    """Which cores are for what."""

    server: set
    load: set
    origin: set
    all: set     # that this program may use


@dataclass
class Options:
    """What the command line asks for."""

    rounds: int = 5
    seconds: float = 1.0
    connections: int = 64
    quick: bool = False
    files: int = 1000
    idle: int = 10_000
    slow: int = 1000
    latency_requests: int = 1_000_000
