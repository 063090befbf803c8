local function holder_in(meta)
  if not meta then return nil end
  local fence, ttl, claim, session = string.match(meta, '^1 (%d+) %d+ (%d+) (%x+) (%S+)')
  return claim, tonumber(ttl), fence, session
end

local function wake(session, message)
  redis.call('PUBLISH', 'leasehold:wake:' .. session, message)
end

-- Grants the free K to the first in line who lives. Says 'free' if nobody does, 'again' if so many
-- are dead that the rest must wait for another call, else 'handed', the claim and its fence.
local function hand(K, M, L, W, now, me)
  for _ = 1, 64 do
    local head = redis.call('ZPOPMIN', L)[1]
    if not head then return 'free' end
    local entry = redis.call('HGET', W, head)
    redis.call('HDEL', W, head)
    if entry then
      local expiry, ttl, tail = string.match(entry, '^(%d+) (%d+) (.*)$')
      local left = expiry - math.floor(now / 1000)
      -- More left than the whole ttl: the clock was set back, and when it lapses is unknown.
      if left > 0 and left <= tonumber(ttl) then
        -- Only what is left of its heartbeat: one that died in line costs one ttl, not two.
        redis.call('SET', K, head, 'PX', whole(left))
        local fence = record(M, redis.call('GET', M), now, head, ttl, tail)
        if head ~= me then wake(string.match(tail, '^%S+'), 'held ' .. head .. ' ' .. fence) end
        return 'handed', head, fence
      end
    end
  end
  return redis.call('EXISTS', L) == 1 and 'again' or 'free'
end

local function keep_line(L, W, ttl)
  local keep = whole(math.max(4 * ttl, redis.call('PTTL', L)))
  redis.call('PEXPIRE', L, keep)
  redis.call('PEXPIRE', W, keep)
end

-- Whether the claim stands in line and its heartbeat has not lapsed.
local function in_line(L, W, now, claim)
  local entry = redis.call('HGET', W, claim)
  return entry and tonumber(string.match(entry, '^%d+')) > now / 1000
    and redis.call('ZSCORE', L, claim) and entry
end

local function withdraw(L, W, claim)
  redis.call('HDEL', W, claim)
  return redis.call('ZREM', L, claim) == 1
end

-- The value of K; false if there is none, true if it is not even a string.
local function value_of(K)
  local value = redis.pcall('GET', K)
  return type(value) == 'table' or value
end
