"""The servers: where their programs are, which version they have, how each is configured.

Every server is given one worker (or as many as the case says) and the same duty: `static` serves
the files under a root, `proxy` passes everything on to one origin, `cache` does so and keeps the
answers (`caches.py`). Rivals are set up as their own
documentation advises for speed; what is left at its default is what users leave, too. They add no
forwarding fields, Forebay adds those that it always adds.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from . import caches
from .procs import BenchError
from .setup import Launch, forebay_config, open_files, write


def floor(setup, binaries):
    """The bare epoll loop with canned bytes: no server at all, but what none can undercut."""
    return Launch([binaries["floor"], "-p", setup.port])


def forebay(setup, binaries):
    if setup.mode == "static":
        compress = 'compress { encodings = "gzip" }, ' if setup.gzip else ""
        sites = f'site {{ "*", {compress}files "{setup.root}" }}'
    elif setup.mode == "php":
        sites = f'site {{ "*", fastcgi "unix:{setup.php}" {{ root = "{setup.root}" }} }}'
    else:
        sites = f"""\
local origin = upstream "origin" {{ "127.0.0.1:{setup.origin_port}", max_connections = 20000,
                                   idle_connections = 1024 }}
site {{ "*", proxy(origin) }}"""
    path = write(setup, "forebay.lua", setup.config or forebay_config(setup, sites))
    # The environment's own setting of the workers would override the file's.
    return Launch([binaries["forebay"], "run", path], {"FOREBAY_WORKERS": str(setup.workers)})


NGINX_PATHS = """\
  client_body_temp_path tmp-body; proxy_temp_path tmp-proxy; fastcgi_temp_path tmp-fastcgi;
  uwsgi_temp_path tmp-uwsgi; scgi_temp_path tmp-scgi;"""


def nginx(setup, binaries):
    """Tuned: cached descriptors, no log, kept connections, buffers that hold the 64 KiB body."""
    if setup.mode == "static":
        gzip = "gzip on; gzip_comp_level 4; " if setup.gzip else ""
        location = f"{gzip}root {setup.root};"
    elif setup.mode == "php":
        location = f"""root {setup.root}; include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
      fastcgi_pass php; fastcgi_keep_conn on;"""
    else:
        location = """proxy_pass http://origin; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_buffer_size 16k; proxy_buffers 16 32k;
      proxy_busy_buffers_size 256k; proxy_max_temp_file_size 0;"""
    reuseport = " reuseport" if setup.workers > 1 else ""
    path = write(setup, "nginx.conf", f"""\
worker_processes {setup.workers};
worker_rlimit_nofile {open_files()};
pid {setup.dir}/nginx.pid;
error_log {setup.dir}/error.log;
daemon off;
events {{ worker_connections {open_files() - 100}; multi_accept on; }}
http {{
{NGINX_PATHS}
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  open_file_cache max=4000 inactive=1h;
  open_file_cache_valid 60s;
  upstream origin {{
    server 127.0.0.1:{setup.origin_port};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  upstream php {{
    server unix:{setup.php or "/nowhere"};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{setup.port} backlog=4096{reuseport};
    location / {{ {location} }}
  }}
}}
""")
    return Launch([binaries["nginx"], "-p", setup.dir, "-c", path, "-e", setup.dir / "start.log"])


def nginx_default(setup, binaries):
    """As Debian delivers it: access log, gzip for HTML; the origin by HTTP/1.0, one by one."""
    location = (f"root {setup.root};" if setup.mode == "static"
                else f"proxy_pass http://127.0.0.1:{setup.origin_port};")
    path = write(setup, "nginx.conf", f"""\
worker_processes {setup.workers};
worker_rlimit_nofile {open_files()};
pid {setup.dir}/nginx.pid;
error_log {setup.dir}/error.log;
daemon off;
events {{ worker_connections {open_files() - 100}; }}
http {{
{NGINX_PATHS}
  include /etc/nginx/mime.types;
  default_type application/octet-stream;
  access_log {setup.dir}/access.log;
  sendfile on;
  tcp_nopush on;
  types_hash_max_size 2048;
  gzip on;
  server {{
    listen 127.0.0.1:{setup.port};
    location / {{ {location} }}
  }}
}}
""")
    return Launch([binaries["nginx"], "-p", setup.dir, "-c", path, "-e", setup.dir / "start.log"])


def haproxy(setup, binaries, options=""):
    """Has no files: its `static` answers from its cache, in front of an origin that allows it."""
    cache = rules = ""
    # A client of the cache needs one descriptor, one of the proxy two.
    connections = (open_files() - 500) // 2
    if setup.mode == "static":
        connections = open_files() - 1000
        cache = (f"cache all\n  total-max-size {setup.cache_mb}\n  max-object-size 2000000\n"
                 "  max-age 3600\n")
        rules = "  http-request cache-use all\n  http-response cache-store all\n"
    path = write(setup, "haproxy.cfg", f"""\
global
  nbthread {setup.workers}
  no strict-limits
  ulimit-n {open_files()}
  maxconn {connections}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  http-reuse always
{options}{cache}frontend front
  bind 127.0.0.1:{setup.port} backlog 4096
  default_backend back
backend back
{rules}  server origin 127.0.0.1:{setup.origin_port} pool-max-conn 1024
""")
    return Launch([binaries["haproxy"], "-db", "-f", path])


def haproxy_splice(setup, binaries):
    """Lets the kernel move bodies from socket to socket, which pays for long ones."""
    return haproxy(setup, binaries, "  option splice-response\n")


def h2o(setup, binaries):
    if setup.mode == "static":
        duty = f"file.dir: {setup.root}"
    else:
        duty = f'proxy.reverse.url: "http://127.0.0.1:{setup.origin_port}/"'
    user = "user: root\n" if os.geteuid() == 0 else ""
    path = write(setup, "h2o.conf", f"""\
{user}num-threads: {setup.workers}
max-connections: {open_files() - 200}
http1-request-timeout: 3600
proxy.timeout.keepalive: 60000
error-log: {setup.dir}/error.log
listen:
  host: 127.0.0.1
  port: {setup.port}
hosts:
  default:
    paths:
      /:
        {duty}
""")
    return Launch([binaries["h2o"], "-m", "worker", "-c", path])


def lighttpd(setup, binaries):
    """Its proxy cannot keep connections to an origin."""
    duty = ""
    if setup.mode == "proxy":
        duty = f"""\
server.modules = ( "mod_proxy" )
proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => {setup.origin_port} )) )"""
    # With one worker there is no master beside it, as the documentation advises.
    workers = setup.workers if setup.workers > 1 else 0
    path = write(setup, "lighttpd.conf", f"""\
server.bind = "127.0.0.1"
server.port = {setup.port}
server.document-root = "{setup.root}"
server.errorlog = "{setup.dir}/error.log"
server.max-worker = {workers}
server.max-fds = {open_files()}
server.max-connections = {open_files() // 2 + open_files() // 3}
server.max-keep-alive-requests = 1000000000
server.max-keep-alive-idle = 3600
server.max-read-idle = 3600
server.max-write-idle = 3600
server.listen-backlog = 4096
mimetype.assign = ( ".bin" => "application/octet-stream" )
{duty}
""")
    return Launch([binaries["lighttpd"], "-D", "-f", path])


def caddy(setup, binaries):
    if setup.mode == "static":
        duty = f"root * {setup.root}\n  file_server"
    else:
        duty = f"""reverse_proxy 127.0.0.1:{setup.origin_port} {{
    transport http {{
      keepalive_idle_conns_per_host 1024
      compression off
    }}
  }}"""
    path = write(setup, "Caddyfile", f"""\
{{
  admin off
  auto_https off
  log {{
    level ERROR
  }}
}}
http://:{setup.port} {{
  bind 127.0.0.1
  {duty}
}}
""")
    env = {"GOMAXPROCS": str(setup.workers), "XDG_DATA_HOME": str(setup.dir),
           "XDG_CONFIG_HOME": str(setup.dir), "HOME": str(setup.dir)}
    return Launch([binaries["caddy"], "run", "--adapter", "caddyfile", "--config", path], env)


# The order is that of the tables: ours, then the rivals from the leanest on. None: only a cache.
SERVERS = {
    "forebay": forebay,
    "nginx": nginx,
    "nginx-default": nginx_default,
    "nginx-aio": None,
    "haproxy": haproxy,
    "haproxy-splice": haproxy_splice,
    "h2o": h2o,
    "lighttpd": lighttpd,
    "caddy": caddy,
    "varnish": None,
    "floor": floor,
}

# What they are as caches; the others are none.
CACHES = {
    "forebay": caches.forebay,
    "nginx": caches.nginx,
    "nginx-aio": caches.nginx_aio,
    "haproxy": caches.haproxy,
    "varnish": caches.varnish,
    "floor": floor,
}

VERSION_ARGS = {
    "forebay": ["--version"],
    "nginx": ["-v"],
    "haproxy": ["-v"],
    "h2o": ["-v"],
    "lighttpd": ["-v"],
    "caddy": ["version"],
    "varnish": ["-V"],
}


PROGRAMS = {"varnish": "varnishd"}


def find(forebay_path, tools_dir):
    """The programs that exist here, by name, and a sentence for each that does not."""
    found, missing = {"floor": tools_dir / "origin"}, []
    path = Path(forebay_path).resolve()
    if os.access(path, os.X_OK):
        found["forebay"] = path
    else:
        missing.append(f"forebay is left out: {path} is not there (cargo build --release)")
    search = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin"
    for name in ("nginx", "haproxy", "h2o", "lighttpd", "caddy", "varnish"):
        program = shutil.which(PROGRAMS.get(name, name), path=search)
        if program:
            found[name] = Path(program)
        else:
            missing.append(f"{name} is left out: not installed (apt install {name})")
    if "nginx" in found:
        found["nginx-default"] = found["nginx-aio"] = found["nginx"]
    if "haproxy" in found:
        found["haproxy-splice"] = found["haproxy"]
    return found, missing


def version(name, program):
    """What the program says of its version, in a few characters."""
    args = VERSION_ARGS.get(name)
    if not args:
        return ""
    done = subprocess.run([program, *args], capture_output=True, text=True, check=False,
                          timeout=10)
    match = re.search(r"\d+\.\d+(\.\d+)?[-\w.+~]*", done.stdout + done.stderr)
    return match.group(0) if match else "unknown"


def start(keeper, name, setup, binaries, cores):
    """Configures and starts a server; the caller waits until it listens."""
    if name not in binaries:
        raise BenchError(f"{name} is not here")
    setup.dir.mkdir(parents=True, exist_ok=True)
    # Servers that become another user must reach their files.
    setup.dir.chmod(0o777)
    launch = (CACHES if setup.mode == "cache" else SERVERS)[name](setup, binaries)
    return keeper.start(name, launch.argv, cores, env=launch.env, cwd=setup.dir,
                        log=setup.dir / "output.log")
