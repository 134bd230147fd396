-- Posts the lines of a file, each once, from a line on; ends with one JSON line. wrk … -s wrk.lua URL -- FILE SKIP
local requests, sent = {}, 0

function init(arguments)
  local headers, line = {["Content-Type"] = "application/json"}, 0
  for body in io.lines(arguments[1]) do
    line = line + 1
    if line > tonumber(arguments[2]) then
      requests[#requests + 1] = wrk.format("POST", "/v1/predict", headers, body)
    end
  end
end

function request()
  sent = sent % #requests + 1
  return requests[sent]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.3f, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f, "not_2xx": %d, "dropped": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(90) / 1e3,
    latency:percentile(99) / 1e3, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
