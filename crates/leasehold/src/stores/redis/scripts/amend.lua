-- KEYS: K M L W H.  ARGV: claim, units, tail.
-- Returns 1 if the claim holds, else 0, and 'again' beside it if there is more to grant.
local claim, tail = ARGV[1], ARGV[3]
now = micros()
look(value_of(K))
if value == claim then
  -- A memory that was deleted behind our back has no note to change.
  local holder, ttl, fence = holder_in(redis.call('GET', M))
  if holder == claim then
    local since = string.match(redis.call('GET', M), '^1 %d+ (%d+)')
    redis.call('SET', M, '1 ' .. fence .. ' ' .. since .. ' ' .. whole(ttl) .. ' ' .. claim .. ' ' .. tail, 'KEEPTTL')
  end
  return {1, ''}
end
local entry = standing(claim)
local holds = entry and entry.fence > 0
if holds then
  local fewer = math.min(entry.units, tonumber(ARGV[2]))
  units, changed = units - entry.units + fewer, true
  entry.units, entry.tail = fewer, tail
  write(claim, entry)
end
local again = settle('')
return {holds and 1 or 0, again and 'again' or ''}
