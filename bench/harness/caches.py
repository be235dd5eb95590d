"""The servers as caches in front of an origin that allows its answers to be kept.

As expert users set them up: nothing is logged, memory holds all that a case asks for, connections
are kept on both sides.
"""

from .setup import Launch, forebay_config, open_files, write


def forebay_store(setup):
    """The store's directive."""
    disk = ""
    if setup.disk_mb:
        disk = (f', disk = "{setup.shelf}", disk_size = "{setup.disk_mb}MB"'
                ', disk_write = "1GB/s"')
    return f'cache_store {{ memory = "{setup.cache_mb}MB"{disk} }}'


def forebay_proxy(setup):
    """The origin as a step."""
    if setup.php:
        return f'fastcgi "unix:{setup.php}" {{ root = "{setup.root}" }}'
    return f'''proxy(upstream "origin" {{ "127.0.0.1:{setup.origin_port}", max_connections = 20000,
                                   idle_connections = 1024 }})'''


def forebay(setup, binaries):
    sites = (setup.sites or 'site { "*", cache, ORIGIN }').replace("ORIGIN", forebay_proxy(setup))
    path = write(setup, "forebay.lua", forebay_config(setup, f"{forebay_store(setup)}\n{sites}"))
    return Launch([binaries["forebay"], "run", path], {"FOREBAY_WORKERS": str(setup.workers)})


def nginx(setup, binaries, options=""):
    """Its cache is files, read from the kernel's memory and sent by `sendfile`; descriptors cached.

    `tcp_nopush` saves a segment of small answers; of larger ones it keeps back the end until the
    client has acknowledged the rest, 40 ms later.
    """
    size = max(setup.disk_mb, setup.cache_mb) + 64
    kind = "fastcgi" if setup.php else "proxy"
    if setup.php:
        server = f"unix:{setup.php}"
        location = f"""root {setup.root}; include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
      fastcgi_pass origin; fastcgi_keep_conn on;
      fastcgi_cache_key "$scheme$request_method$host$request_uri";"""
    else:
        server = f"127.0.0.1:{setup.origin_port}"
        location = """proxy_pass http://origin; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_buffer_size 16k; proxy_buffers 16 32k;
      proxy_busy_buffers_size 256k;"""
    reuseport = " reuseport" if setup.workers > 1 else ""
    path = write(setup, "nginx.conf", f"""\
worker_processes {setup.workers};
worker_rlimit_nofile {open_files()};
pid {setup.dir}/nginx.pid;
error_log {setup.dir}/error.log;
daemon off;
events {{ worker_connections {open_files() - 100}; multi_accept on; }}
http {{
  client_body_temp_path tmp-body; proxy_temp_path tmp-proxy; fastcgi_temp_path tmp-fastcgi;
  uwsgi_temp_path tmp-uwsgi; scgi_temp_path tmp-scgi;
  access_log off;
  sendfile on;
  tcp_nopush {'on' if setup.cork else 'off'};
  keepalive_timeout 1h;
  keepalive_requests 1000000000;
  {options}
  open_file_cache max=20000 inactive=1h;
  open_file_cache_valid 1h;
  {kind}_cache_path {setup.shelf} levels=1:2 keys_zone=all:256m max_size={size}m inactive=1d
                   use_temp_path=off;
  upstream origin {{
    server {server};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{setup.port} backlog=4096{reuseport};
    location / {{
      {location}
      {kind}_cache all;
    }}
  }}
}}
""")
    return Launch([binaries["nginx"], "-p", setup.dir, "-c", path, "-e", setup.dir / "start.log"])


def nginx_aio(setup, binaries):
    """As its authors advise for caches larger than the memory: threads read for it."""
    return nginx(setup, binaries, "aio threads; aio_write on;")


def haproxy(setup, binaries):
    path = write(setup, "haproxy.cfg", f"""\
global
  nbthread {setup.workers}
  no strict-limits
  ulimit-n {open_files()}
  maxconn {open_files() - 1000}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  http-reuse always
cache all
  total-max-size {min(4095, setup.cache_mb)}
  max-object-size 2000000
  max-age 86400
frontend front
  bind 127.0.0.1:{setup.port} backlog 4096
  default_backend back
backend back
  http-request cache-use all
  http-response cache-store all
  server origin 127.0.0.1:{setup.origin_port} pool-max-conn 1024
""")
    return Launch([binaries["haproxy"], "-db", "-f", path])


# All that a request would have logged: varnishd writes it whether anybody reads or not.
VARNISH_SILENT = """\
SessOpen SessClose Begin End Link ReqStart ReqMethod ReqURL ReqProtocol ReqHeader ReqUnset ReqAcct
RespMethod RespURL RespProtocol RespStatus RespReason RespHeader RespUnset BereqMethod BereqURL
BereqProtocol BereqHeader BereqUnset BereqAcct BerespProtocol BerespStatus BerespReason
BerespHeader BerespUnset BackendOpen BackendClose BackendReuse FetchError Fetch_Body Filters Length
Storage TTL Timestamp VCL_call VCL_return VCL_use VCL_acl VCL_Error VCL_Log Hit HitMiss HitPass
Gzip ObjProtocol ObjStatus ObjReason ObjHeader ExpBan Error Debug""".split()


def varnish(setup, binaries):
    """In memory of its own, a thread pool per core, without its log in shared memory."""
    path = write(setup, "varnish.vcl", f"""\
vcl 4.1;
backend origin {{ .host = "127.0.0.1"; .port = "{setup.origin_port}"; .max_connections = 20000; }}
sub vcl_recv {{ if (req.method == "GET") {{ unset req.http.Cookie; return (hash); }} }}
""")
    silent = ",".join(f"-{tag}" for tag in VARNISH_SILENT)
    return Launch([
        binaries["varnish"], "-F", "-j", "none", "-n", setup.dir / "varnish", "-f", path,
        "-a", f"127.0.0.1:{setup.port}", "-s", f"malloc,{setup.cache_mb}m", "-T", "none",
        "-p", f"thread_pools={setup.workers}", "-p", "thread_pool_min=200",
        "-p", "thread_pool_max=4000", "-p", "timeout_idle=3600", "-p", "default_keep=0",
        "-p", f"vsl_mask={silent}",
    ])
