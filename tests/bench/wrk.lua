-- One thread of wrk: the bodies of a file (one a line), in turn, each as a whole request made beforehand.
-- Arguments: FILE PATH. At the end one line of JSON on stdout; times in microseconds.

local requests, place = {}, 0

function init(arguments)
   local headers = { ["Content-Type"] = "application/json" }
   for line in io.lines(arguments[1]) do
      requests[#requests + 1] = wrk.format("POST", arguments[2], headers, line)
   end
end

function request()
   place = place % #requests + 1
   return requests[place]
end

function done(summary, latency, _)
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"duration_us":%d,"refused":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,' ..
      '"p50_us":%d,"p99_us":%d,"worst_us":%d}\n',
      summary.requests, summary.duration, errors.status, errors.connect, errors.read, errors.write, errors.timeout,
      latency:percentile(50), latency:percentile(99), latency.max))
end
