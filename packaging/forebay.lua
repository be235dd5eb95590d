-- The configuration of forebay.service.
--
--   forebay check /etc/forebay/forebay.lua     shows every mistake
--   systemctl reload forebay                   puts it into service, if it has none
--
-- What can be written here: man forebay, and https://github.com/forebay/forebay/tree/main/docs

server {
  -- The service may not write to /run itself. Commands look for this place, too.
  admin = "unix:/run/forebay/admin.sock",
}

listen ":80"

-- Every host. A request flows down the list until a step answers: what is in /var/www/html is sent,
-- else what is in the other directory, a page that shows that it works.
site { "*",
  files "/var/www/html",
  files "/usr/share/forebay/www",
}

-- An application of its own host, with its files in front:
--
-- site { "app.example.com",
--   compress,
--   access_log "/var/log/forebay/app.log",
--   files "/srv/app/public",
--   proxy "127.0.0.1:3000",
-- }
