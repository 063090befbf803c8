-- What the scripts share. Per locked key K there are, in the same slot:
--   M  string  "1 fence since ttl claim tail": the present or the last hold; the memory of the fence
--   L  zset    claim -> ticket: the line
--   W  hash    claim -> "expiry ttl tail": what is known of each claim in line
-- with tail = "session bytes-of-owner owner-and-note". Times: since and ticket in microseconds,
-- the others in milliseconds. Numbers become text by whole() only: Lua's own conversion turns
-- sixteen digits into 1.7e+15.

local FENCE_MEMORY = 3600000 -- outlives the largest step of the server's clock, in milliseconds

local function whole(number)
  return string.format('%.0f', number)
end

local function micros()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The last fence; 0 if there was none, nil if M is not what these scripts wrote. 2^53 is where
-- Lua's numbers stop counting by one.
local function last_fence(meta)
  if not meta then return 0 end
  local fence = tonumber(string.match(meta, '^1 (%d+) %d+ %d+ %x+ '))
  if fence and fence < 9007199254740000 then return fence end
end

local function keep_memory(M, now, fence, ttl)
  redis.call('PEXPIREAT', M, whole(math.max(now, fence) / 1000 + ttl + FENCE_MEMORY))
end

-- Remembers a grant, and counts its fence: by the clock, so that it does not fall back when the
-- memory is lost, and past the last one, so that it does not when the clock does.
local function record(M, meta, now, claim, ttl, tail)
  local fence = math.max(last_fence(meta) + 1, now)
  redis.call('SET', M, '1 ' .. whole(fence) .. ' ' .. whole(now) .. ' ' .. ttl .. ' ' .. claim .. ' ' .. tail,
    'PXAT', whole(fence / 1000 + ttl + FENCE_MEMORY))
  return whole(fence)
end
