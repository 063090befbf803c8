-- What the scripts share. Per locked key K there are, in the same slot:
--   M  string  "1 fence since ttl claim tail": the present or the last grant; the memory of the fence
--   L  zset    claim -> ticket: the line
--   W  hash    claim -> "expiry ttl units limit fence since tail": what is known of each claim in line
--   H  zset    claim -> expiry: those in line who hold beside each other
-- with tail = "session bytes-of-owner owner-and-note". The holder of a mutex (a limit of 1) is the
-- value of K, is told of by M, and stands in line no more. Those who hold beside each other stay at
-- the head of the line, with a fence (0 for who waits); K is then "leasehold:limit:units:seen", with
-- the units of all of them, the time of that writing, and the last of their expiries as its own.
-- Times: since, ticket and seen in microseconds, the others in milliseconds. Numbers become text by
-- whole() only: Lua's own conversion turns sixteen digits into 1.7e+15. (As arguments of redis.call
-- they keep seventeen.)

local FENCE_MEMORY = 3600000 -- outlives the largest step of the server's clock, in milliseconds

local K, M, L, W, H = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local now -- microseconds
local last -- the last fence, once it was read

-- Sixteen digits: a fence is found by its place, for less than a pattern costs. Enough until 2286.
local function whole(number)
  return string.format('%016.0f', number)
end

local function micros()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The last fence; 0 if there was none, nil if M is not what these scripts wrote. 2^53 is where
-- Lua's numbers stop counting by one.
local function last_fence(meta)
  if not meta then return 0 end
  local fence = string.sub(meta, 1, 2) == '1 ' and tonumber(string.sub(meta, 3, 18))
  if fence and fence < 9007199254740000 then return fence end
end

local function keep_memory(fence, ttl)
  redis.call('PEXPIREAT', M, math.floor(math.max(now, fence) / 1000) + ttl + FENCE_MEMORY)
end

-- Remembers a grant, and counts its fence: by the clock, so that it does not fall back when the
-- memory is lost, and past the last one, so that it does not when the clock does.
local function remember(claim, ttl, tail)
  local since = whole(now)
  local fence, text = now, since
  if last >= now then
    fence = last + 1
    text = whole(fence)
  end
  redis.call('SET', M, '1 ' .. text .. ' ' .. since .. ' ' .. ttl .. ' ' .. claim .. ' ' .. tail,
    'PXAT', math.floor(fence / 1000) + ttl + FENCE_MEMORY)
  return text
end
