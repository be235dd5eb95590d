-- The configuration of the container image. Mount another one over it, or over /etc/forebay.

server {
  -- /tmp can be written to by any user, also where the rest is read-only.
  admin = "unix:/tmp/forebay.sock",
}

listen ":8080"

site { "*",
  files "/srv/www",
  files "/usr/share/forebay/www",
}
