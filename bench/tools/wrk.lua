-- The load of `bench/run --wrk`: the same request file as load.c reads, sent by wrk.

local function read_requests(path)
  local file = assert(io.open(path, "rb"))
  local all = file:read("*a")
  file:close()
  local list, at = {}, 1
  while at + 4 <= #all do
    local a, b, c, d = all:byte(at, at + 3) -- little-endian, as on every machine wrk runs on here
    local len = a + b * 256 + c * 65536 + d * 16777216
    list[#list + 1] = all:sub(at + 4, at + 3 + len)
    at = at + 4 + len
  end
  return list
end

local requests, batches, drawn = nil, {}, 0

function init(_)
  math.randomseed(1)
  requests = read_requests(os.getenv("BENCH_REQUESTS"))
  local depth = tonumber(os.getenv("BENCH_DEPTH"))
  -- Joined beforehand: wrk's own cost per request must stay small.
  for i = 1, #requests == 1 and 1 or 4096 do
    local parts = {}
    for j = 1, depth do parts[j] = requests[math.random(#requests)] end
    batches[i] = table.concat(parts)
  end
end

function request()
  drawn = drawn % #batches + 1
  return batches[drawn]
end

function done(summary, latency, _)
  local e = summary.errors
  local file = assert(io.open(os.getenv("BENCH_REPORT"), "w"))
  file:write(string.format(
    '{"answers":%d,"bytes":%d,"seconds":%f,"alive":0,"reconnects":0,"errors":'
      .. '{"status":%d,"broken":%d,"refused":%d,"timeout":%d},'
      .. '"latency":{"mean":%f,"deviation":%f,"p50":%f,"p99":%f}}',
    summary.requests, summary.bytes, summary.duration / 1e6, e.status, e.read + e.write,
    e.connect, e.timeout, latency.mean / 1e6, latency.stdev / 1e6, latency:percentile(50) / 1e6,
    latency:percentile(99) / 1e6))
  file:close()
end
