-- KEYS: K M L W H.  ARGV: claim, ttl, 'try' or 'wait', tail, units, limit.
-- Returns {'held', fence} | {'again'} | {'disagrees', the others' limit}
--   | {'waiting' or 'refused', rank, milliseconds until a lapse may let it in, now,
--      M if it tells of the present hold, else '', the first of those who hold beside each other, its entry}
local claim, ttl, tail = ARGV[1], ARGV[2], ARGV[4]

local meta = redis.call('GET', M)
last = last_fence(meta)
if not last then return redis.error_reply('CORRUPT meta') end
-- The whole of the uncontended case of a mutex: nobody in line, and K is free.
if ARGV[6] == '1' and redis.call('EXISTS', L) == 0 and redis.call('SET', K, claim, 'NX', 'PX', ttl) then
  now = micros()
  return {'held', remember(claim, ttl, tail)}
end
