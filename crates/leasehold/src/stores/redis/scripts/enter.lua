-- KEYS: K M L W.  ARGV: claim, ttl, 'try' or 'wait', tail.
-- Returns {'held', fence} | {'again'} | {'waiting' or 'refused', rank, pttl of K, now, M or ''}
local K, M, L, W = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local claim, ttl, tail = ARGV[1], ARGV[2], ARGV[4]

local meta = redis.call('GET', M)
if not last_fence(meta) then return redis.error_reply('CORRUPT meta') end
-- The whole of the uncontended case: nobody in line, and K is free.
if redis.call('EXISTS', L) == 0 and redis.call('SET', K, claim, 'NX', 'PX', ttl) then
  return {'held', record(M, meta, micros(), claim, ttl, tail)}
end
