listen "127.0.0.1:8080"

site { "*",
  -- An application of yours, on its own port.
  route "/api/*" { proxy "127.0.0.1:3000" },

  -- Everything else: the files in ./public
  files "public",
}
