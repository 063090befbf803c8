-- KEYS: K V.  ARGV: claim, ttl, attempt, proposal, tail.
-- Returns {'granted', counter} | {'denied', pttl of K, now, V or ''}
local K, V = KEYS[1], KEYS[2]
local claim, ttl, attempt, proposal, tail = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local AHEAD = 10000000 -- how far ahead of the clock a proposal may push the counter

local record, now = redis.call('GET', V), micros()
local counter = counter_in(record)
if not counter then return redis.error_reply('CORRUPT vote') end

local function begin()
  counter = math.max(counter + 1, now, math.min(proposal, now + AHEAD))
  local tenure = table.concat({attempt, '1', whole(counter), whole(now), ttl, claim, tail}, ' ')
  keep(V, tenure, now, counter, ttl)
  return {'granted', whole(counter)}
end

if redis.call('SET', K, claim, 'NX', 'PX', ttl) then return begin() end

local value, holder, holder_ttl = value_of(K), holder_in(record)
if value == claim then
  redis.call('PEXPIRE', K, ttl)
  -- The memory was deleted behind our back: another tenure is the best that can be done.
  if holder ~= claim then return begin() end
  -- From now on it is the later try's: what the earlier one gives back does not end it.
  if attempt > attempt_in(record) then record = attempt .. string.sub(record, 17) end
  keep(V, record, now, counter, ttl)
  return {'granted', whole(counter)}
end

local left = redis.call('PTTL', K)
if holder == value and (left < 0 or left > holder_ttl) then
  -- The server's clock was set back, or somebody took the TTL away: no hold of ours outlasts its ttl.
  redis.call('PEXPIRE', K, holder_ttl)
  left = holder_ttl
end
return {'denied', left, whole(now), holder == value and record or ''}
