-- What the scripts share. Per locked key K there is, in the same slot:
--   V  string  "attempt 1 counter since ttl claim tail": the counter, and the present or the last
--              tenure
-- with tail = "session bytes-of-owner owner-and-note". attempt: which try of the claim began the
-- tenure; sixteen digits, like counter and since, which are in microseconds. ttl: milliseconds.
-- Numbers become text by whole() only: Lua's own conversion turns sixteen digits into 1.7e+15.

local COUNTER_MEMORY = 3600000 -- outlives the largest step of the server's clock, in milliseconds

local function whole(number)
  return string.format('%016.0f', number)
end

local function micros()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- 0 if there was none, nil if V is not what these scripts wrote. 2^53 is where Lua's numbers stop
-- counting by one.
local function counter_in(record)
  if not record then return 0 end
  local counter = string.sub(record, 17, 19) == ' 1 ' and tonumber(string.sub(record, 20, 35))
  if counter and counter < 9007199254740000 then return counter end
end

local function attempt_in(record)
  return string.sub(record, 1, 16)
end

local function holder_in(record)
  if not record then return nil end
  local ttl, claim, session = string.match(record, '^%d+ 1 %d+ %d+ (%d+) (%x+) (%S+)')
  return claim, tonumber(ttl), session
end

-- The value of K; false if there is none, true if it is not even a string.
local function value_of(K)
  local value = redis.pcall('GET', K)
  return type(value) == 'table' or value
end

local function keep(V, record, now, counter, ttl)
  redis.call('SET', V, record, 'PXAT', math.floor(math.max(now, counter) / 1000) + ttl + COUNTER_MEMORY)
end

local function at_counter(record, counter)
  return string.sub(record, 1, 19) .. whole(counter) .. string.sub(record, 36)
end
