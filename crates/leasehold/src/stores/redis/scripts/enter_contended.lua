local now = micros()
local value = value_of(K)
local holder, holder_ttl, fence = holder_in(meta)

if value == claim then
  redis.call('PEXPIRE', K, ttl)
  -- The memory was deleted behind our back: another fence is the best that can be done.
  if holder ~= claim then return {'held', record(M, meta, now, claim, ttl, tail)} end
  keep_memory(M, now, tonumber(fence), ttl)
  return {'held', fence}
end

if not value then
  -- K is free, but those in line come first.
  local outcome, head, head_fence = hand(K, M, L, W, now, claim)
  if outcome == 'again' then return {'again'} end
  if outcome == 'free' then
    redis.call('SET', K, claim, 'PX', ttl)
    return {'held', record(M, meta, now, claim, ttl, tail)}
  end
  if head == claim then
    redis.call('PEXPIRE', K, ttl)
    return {'held', head_fence}
  end
  value, meta = head, redis.call('GET', M)
  holder, holder_ttl = holder_in(meta)
end

local left = redis.call('PTTL', K)
if holder == value and (left < 0 or left > holder_ttl) then
  -- The server's clock was set back, or somebody took the TTL away: no hold of ours outlasts its ttl.
  redis.call('PEXPIRE', K, holder_ttl)
  left = holder_ttl
end

local rank
if ARGV[3] == 'try' then
  withdraw(L, W, claim)
  rank = redis.call('ZCARD', L)
else
  if not in_line(L, W, now, claim) then
    local last = redis.call('ZREVRANGE', L, 0, 0, 'WITHSCORES')[2] or 0
    redis.call('ZADD', L, whole(math.max(last + 1, now)), claim)
  end
  redis.call('HSET', W, claim, whole(math.floor(now / 1000) + ttl) .. ' ' .. ttl .. ' ' .. tail)
  keep_line(L, W, ttl)
  rank = redis.call('ZRANK', L, claim)
end
return {ARGV[3] == 'try' and 'refused' or 'waiting', rank, left, whole(now), holder == value and meta or ''}
