-- KEYS: K M L W H, R as in read.lua, and V, the last version: remembered for as long as the clock may
-- step back, because R goes when its time is over.
-- ARGV: bytes, milliseconds to keep them, 'version' and sixteen digits or '', or 'held' and a claim.
-- Returns 1 if what was provided is true and R was written, else 0.
local R, V = KEYS[6], KEYS[7]
now = micros()
if ARGV[3] == 'held' then
  parse(value_of(K))
  local entry = value ~= ARGV[4] and standing(ARGV[4])
  if value ~= ARGV[4] and not (entry and entry.fence > 0) then return 0 end
elseif string.sub(redis.call('GET', R) or '', 1, 16) ~= ARGV[4] then
  return 0
end
local before = redis.call('GET', V) or '0'
if not string.match(before, '^%d+$') or tonumber(before) > 9007199254740000 then
  return redis.error_reply('CORRUPT version')
end
local version = math.max(before + 1, now)
redis.call('SET', R, whole(version) .. ARGV[1], 'PX', ARGV[2])
redis.call('SET', V, whole(version), 'PXAT', math.floor(version / 1000) + ARGV[2] + FENCE_MEMORY)
return 1
