"""What a server is given to do, and what its configuration is written with."""

import resource
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Setup:
    """What one server is to do in a case."""

    mode: str            # "static", "proxy", "cache" or "php"
    port: int
    dir: Path            # its own directory, for its configuration and whatever it writes
    root: Path           # static files
    origin_port: int     # of the origin behind it
    workers: int = 1
    cache_mb: int = 64   # of memory that a server may cache its origin's answers in
    disk_mb: int = 0     # and of its disk
    config: str = ""     # a whole configuration in place of the usual one (Forebay only)
    sites: str = ""      # sites in place of the usual one; ORIGIN stands for the origin (likewise)
    gzip: bool = False   # compress files on the fly, by gzip at level 4
    php: str = ""        # the socket of php-fpm, which has the scripts under `root`
    cork: bool = True    # head and body in one segment (nginx's cache only)

    @property
    def shelf(self):
        """The directory of a cache on disk."""
        return self.dir / "shelf"


@dataclass
class Launch:
    """How to start a configured server."""

    argv: list
    env: dict = field(default_factory=dict)


def write(setup, name, text):
    path = setup.dir / name
    path.write_text(text)
    return path


def open_files():
    """Descriptors that a server may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def forebay_config(setup, sites):
    """A configuration of Forebay with these sites and nothing that limits the load."""
    return f"""\
server {{ workers = {setup.workers}, admin = "unix:{setup.dir}/admin.sock", log = "error" }}
listen "127.0.0.1:{setup.port}" {{ max_connections_per_client = 1000000 }}
{sites}
"""
