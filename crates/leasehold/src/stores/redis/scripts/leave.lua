-- KEYS: K M L W.  ARGV: claim.
-- Returns 'released' | 'withdrawn' | 'gone', and 'again' beside it if dead claims are left to pass over.
local K, M, L, W = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local claim = ARGV[1]

local value = redis.pcall('GET', K) -- a table, if K is not even a string
local found = 'gone'
if value == claim then
  redis.call('DEL', K)
  found, value = 'released', false
end
-- The whole of the uncontended case.
if redis.call('EXISTS', L) == 0 then return {found, ''} end
