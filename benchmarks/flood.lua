-- Posts card payments without end, each with an id of its own: wrk … -s flood.lua URL -- SEED
-- Counts answers by status; whatever it is told, it comes back at once.
local threads = {}
local headers = { ["Content-Type"] = "application/json" }

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  at = (tonumber(args[1]) + 1) * 1000000000 + number * 100000000
  decided, refused, others = 0, 0, 0
end

function request()
  at = at + 1
  local body = string.format(
    '{"id": %d, "event_time": "2018-05-01T%02d:%02d:%02dZ", "event_type": "payment", ' ..
    '"card": %d, "device": "d%d", "terminal": %d, "amount": %d.5}',
    at, at / 360000 % 24, at / 6000 % 60, at / 100 % 60, at * 7 % 10007, at * 7 % 10007,
    at * 31 % 9973, at % 200)
  return wrk.format("POST", nil, headers, body)
end

function response(status)
  if status == 200 then
    decided = decided + 1
  elseif status == 429 then
    refused = refused + 1
  else
    others = others + 1
  end
end

function done(summary, latency)
  local d, r, o = 0, 0, 0
  for _, thread in ipairs(threads) do
    d = d + thread:get("decided")
    r = r + thread:get("refused")
    o = o + thread:get("others")
  end
  local e = summary.errors
  io.write(string.format(
    '{"seconds": %f, "decided": %d, "refused": %d, "failed": %d}\n', summary.duration / 1e6,
    d, r, o + e.connect + e.read + e.write + e.timeout))
end
