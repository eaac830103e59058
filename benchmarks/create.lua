-- Each request creates a bookmark with a new URL. TAG is unique for each run.
local count = 0
local tag = os.getenv("TAG")
local target = os.getenv("TARGET")
function request()
  count = count + 1
  local body = string.format('{"url":"https://example.com/%s/%d","title":"Benchmark"}', tag, count)
  return wrk.format("POST", target, { ["Content-Type"] = "application/json" }, body)
end
