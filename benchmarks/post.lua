-- Posts the lines of a file one by one: wrk … -s post.lua URL -- FILE FIRST LINES
-- Thread n sends the lines from FIRST + n * LINES on; requests are made before the clock starts.
local threads = 0
local requests = {}
local at = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  local first = tonumber(args[2]) + number * tonumber(args[3])
  local last = first + tonumber(args[3])
  local headers = { ["Content-Type"] = "application/json" }
  local i = 0
  for line in io.lines(args[1]) do
    if i >= last then break end
    if i >= first then
      requests[#requests + 1] = wrk.format("POST", nil, headers, line)
    end
    i = i + 1
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "refused": %d, "errors": %d, "p50_us": %f, "p99_us": %f}\n',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
