-- KEYS: K M L W H.  ARGV: claim.
-- Returns 'released' | 'withdrawn' | 'gone', and 'again' beside it if there is more to pass over or to grant.
local claim = ARGV[1]

local there = redis.pcall('GET', KEYS[1]) -- a table, if K is not even a string
local found = 'gone'
if there == claim then
  redis.call('DEL', KEYS[1])
  found, there = 'released', false
end
-- The whole of the uncontended case of a mutex.
if redis.call('EXISTS', KEYS[3]) == 0 then return {found, ''} end
