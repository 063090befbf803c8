local ms -- now, in milliseconds
-- What K says: false if it is free, true if it is not even a string. The limit is set while ours
-- hold beside each other, the units and the number of them with it.
local value, limit, units, held
-- How many more claims may be dropped or granted, and whether K is to be written.
local steps, changed
local blocked -- for how long the first who waits but does not fit will live without a heartbeat

local function holder_in(meta)
  if not meta then return nil end
  local fence, ttl, claim, session = string.match(meta, '^1 (%d+) %d+ (%d+) (%x+) (%S+)')
  return claim, tonumber(ttl), fence, session
end

-- In a cluster a waiter listens in the slot of the key, so that one node hears of it and not all. A
-- node older than 7.0 cannot do that: there the waiter asks now and then.
local function wake(session, message)
  if string.sub(session, 1, 1) == '{' then
    redis.pcall('SPUBLISH', 'leasehold:wake:' .. session, message)
  else
    redis.call('PUBLISH', 'leasehold:wake:' .. session, message)
  end
end

local function session_in(tail)
  return string.match(tail, '^%S+')
end

-- The value of K; false if there is none, true if it is not even a string.
local function value_of(K)
  local value = redis.pcall('GET', K)
  return type(value) == 'table' or value
end

-- What is known of a claim in line.
local function entry_of(claim)
  local expiry, ttl, units, limit, fence, since, tail =
    string.match(redis.call('HGET', W, claim) or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (.*)$')
  return expiry and {
    expiry = tonumber(expiry), ttl = tonumber(ttl), units = tonumber(units), limit = tonumber(limit),
    fence = tonumber(fence), since = tonumber(since), tail = tail,
  }
end

local function write(claim, entry)
  redis.call('HSET', W, claim, table.concat({
    whole(entry.expiry), whole(entry.ttl), whole(entry.units), whole(entry.limit),
    whole(entry.fence), whole(entry.since), entry.tail,
  }, ' '))
end

-- Whether a claim of the line has not lapsed. Who holds beside others ends with K at the latest.
local function lives(entry)
  return entry.expiry > ms and (entry.fence == 0 or limit ~= nil)
end

-- What is known of a claim that stands in line and lives, be it that it waits or that it holds.
local function standing(claim)
  local entry = entry_of(claim)
  return entry and lives(entry) and redis.call('ZSCORE', L, claim) and entry or nil
end

-- Takes a claim out of the line, dead or alive.
local function drop(claim, entry)
  entry = entry or entry_of(claim) or {fence = 1, units = 0}
  redis.call('HDEL', W, claim)
  redis.call('ZREM', L, claim)
  if entry.fence == 0 or redis.call('ZREM', H, claim) == 0 or not limit then return end
  units, held, changed = units - entry.units, held - 1, true
  if held == 0 then value, limit, units = false, nil, 0 end
end

-- The server's clock was set back since K was written: no hold of ours outlasts its ttl.
local function clamp()
  for _, claim in ipairs(redis.call('ZRANGE', H, 0, -1)) do
    local entry = entry_of(claim)
    if entry and entry.expiry > ms + entry.ttl then
      entry.expiry = ms + entry.ttl
      write(claim, entry)
      redis.call('ZADD', H, entry.expiry, claim)
    end
  end
  changed = true
end

-- Takes in a value of K, without a change.
local function parse(found)
  ms = math.floor(now / 1000)
  value, limit, units, held, steps, changed, blocked = found, nil, 0, 0, 64, false, nil
  local of, taken, seen =
    string.match(type(value) == 'string' and value or '', '^leasehold:(%d+):(%d+):(%d+)$')
  if of then limit, units, held = tonumber(of), tonumber(taken), redis.call('ZCARD', H) end
  return tonumber(seen)
end

-- Takes in a value of K, and drops of those who hold beside each other who lapsed.
local function look(found)
  local seen = parse(found)
  if not limit then return end
  if seen > now then clamp() end
  for _, claim in ipairs(redis.call('ZRANGEBYSCORE', H, '-inf', ms, 'LIMIT', 0, steps)) do
    drop(claim)
    steps = steps - 1
  end
  if held == 0 then value, limit, units, changed = false, nil, 0, true end
end

-- Writes what is held beside each other, to last as long as the last of the holds.
local function save()
  if not changed then return end
  changed = false
  if limit then
    local expiry = tonumber(redis.call('ZREVRANGE', H, 0, 0, 'WITHSCORES')[2])
    redis.call('SET', K, 'leasehold:' .. whole(limit) .. ':' .. whole(units) .. ':' .. whole(now), 'PXAT', expiry)
    redis.call('PEXPIREAT', H, expiry)
    last = last or last_fence(redis.call('GET', M))
    if last then
      redis.call('PEXPIREAT', M, math.max(expiry, math.floor(last / 1000)) + FENCE_MEMORY)
    end
  elseif not value then
    redis.call('DEL', K)
  end
end

-- Whether claims of these limits may stand in one line. A mutex is a writer by another name.
local function agree(one, other)
  return one == other or math.min(one, other) == 1 and math.max(one, other) == 4294967295
end

-- Whether so much is free beside those who hold now. Where limits differ the smaller one counts, so
-- that a mutex is alone.
local function fits(entry)
  return (limit or not value) and units + entry.units <= math.min(limit or entry.limit, entry.limit)
end

-- Grants what fits. Only what is left of the heartbeat: one that died in line costs one ttl, not two.
local function grant(claim, entry)
  local fence = remember(claim, whole(entry.ttl), entry.tail)
  last = tonumber(fence)
  if entry.limit == 1 then
    drop(claim, entry)
    redis.call('SET', K, claim, 'PXAT', entry.expiry)
    value = claim
    return fence
  end
  entry.fence, entry.since = last, now
  write(claim, entry)
  redis.call('ZADD', H, entry.expiry, claim)
  value, limit = true, math.min(limit or entry.limit, entry.limit)
  units, held, changed = units + entry.units, held + 1, true
  return fence
end

-- The first who waits and lives; the dead before it are dropped.
local function first_waiting()
  while steps > 0 do
    local claim = redis.call('ZRANGE', L, held, held)[1]
    if not claim then return nil end
    local entry = entry_of(claim)
    if entry and lives(entry) then return claim, entry end
    drop(claim, entry)
    steps = steps - 1
  end
end

-- Grants to those at the head of the line what is free, and tells them, but for `me`. Whether so many
-- were dropped or granted that the rest must wait for another call.
local function settle(me)
  if value and not limit then return false end
  -- Over a memory that cannot be read nobody is granted: entering says so.
  last = last or last_fence(redis.call('GET', M))
  while last do
    local claim, entry = first_waiting()
    if not claim then break end
    if entry.expiry > ms + entry.ttl then
      -- The clock was set back, and when it lapses is unknown.
      drop(claim, entry)
    elseif fits(entry) then
      local fence = grant(claim, entry)
      if claim ~= me then wake(session_in(entry.tail), 'held ' .. claim .. ' ' .. fence) end
    else
      blocked = entry.expiry - ms
      break
    end
    steps = steps - 1
    if value and not limit then break end
  end
  save()
  return steps <= 0
end

-- Appends a claim to the line.
local function join(claim)
  local last_ticket = redis.call('ZREVRANGE', L, 0, 0, 'WITHSCORES')[2] or 0
  redis.call('ZADD', L, math.max(last_ticket + 1, now), claim)
end

local function keep_line(ttl)
  local keep = math.max(4 * ttl, redis.call('PTTL', L))
  redis.call('PEXPIRE', L, keep)
  redis.call('PEXPIRE', W, keep)
end

-- Extends the lease of a claim that stands in line.
local function refresh(claim, entry, ttl)
  entry.expiry, entry.ttl = ms + ttl, tonumber(ttl)
  write(claim, entry)
  if entry.fence > 0 then
    redis.call('ZADD', H, entry.expiry, claim)
    changed = true
  end
  keep_line(ttl)
end
