-- wrk script: POSTs the bodies of a file in turn and prints the outcome as JSON.
-- wrk -s rotate.lua URL -- BODIES THINK "Name: value"...
-- In a header's value "{n}" is the number of the body that it goes with. BODIES holds, for each body, its length, a newline, the bytes. THINK: milliseconds that each connection waits between
-- an answer and its next request; 0 for none.
local requests = {}
local turn = 0

function init(args)
   local headers = {}
   for i = 3, #args do
      local name, value = args[i]:match("^(.-): (.*)$")
      headers[name] = value
   end
   local think = tonumber(args[2])
   if think > 0 then
      function delay() return think end
   end
   local file = assert(io.open(args[1], "rb"))
   for length in function() return file:read("*n") end do
      file:read(1)
      local mine = {}
      for name, value in pairs(headers) do
         mine[name] = value:gsub("{n}", tostring(#requests + 1))
      end
      requests[#requests + 1] = wrk.format("POST", nil, mine, file:read(length))
   end
   file:close()
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format(
      'RESULT {"requests":%d,"microseconds":%d,"not_2xx":%d,"socket_errors":%d,"timeouts":%d,' ..
      '"p50_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d}\n',
      summary.requests, summary.duration, e.status, e.connect + e.read + e.write, e.timeout,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
