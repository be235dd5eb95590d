"""The benchmark's parts.

`main` reads the command line; `cases` says what is measured and `runners` how; `caching` measures
what is about a cache's disk; `servers` knows how each server is configured and started, `caches`
how as a cache, `php` starts php-fpm, and `setup` is what they are given; `applications`
measures being an application and running them; `tools` builds and runs the load generator and the
origin; `procs` starts, accounts for and ends processes; `allocs` counts allocations; `bars` holds
what Forebay is to reach; `report` and `chart` write it all down.
"""
