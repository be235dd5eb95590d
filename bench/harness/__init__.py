"""The benchmark's parts.

`main` reads the command line; `cases` says what is measured and `runners` how; `servers` knows
how each server is configured and started; `tools` builds and runs the load generator and the
origin; `procs` starts, accounts for and ends processes; `allocs` counts allocations; `bars` holds
what Forebay is to reach; `report` and `chart` write it all down.
"""
