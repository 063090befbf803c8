-- KEYS: K M L W H of each claim.  ARGV: ttl, then of each: claim, tail, units, limit.
-- Returns {0, the fence of each} | {which of them is not granted, what `enter` answers to it}
now = micros()
local ttl, entries, fences = ARGV[1], {}, {}

local function turn_to(i)
  K, M, L, W, H = KEYS[5 * i - 4], KEYS[5 * i - 3], KEYS[5 * i - 2], KEYS[5 * i - 1], KEYS[5 * i]
  local meta = redis.call('GET', M)
  last = last_fence(meta)
  return ARGV[4 * i - 2], meta
end

-- Nothing is undone when a script ends: first all are asked for, then all are taken.
for i = 1, #KEYS / 5 do
  local claim, meta = turn_to(i)
  if not last then return redis.error_reply('CORRUPT meta') end
  local answer, wanted = ask(claim, ttl, 'try', ARGV[4 * i - 1], ARGV[4 * i], ARGV[4 * i + 1], meta)
  if answer and answer[1] ~= 'held' then return {i, answer} end
  entries[i], fences[i] = wanted or false, answer and answer[2] or ''
end
for i, wanted in ipairs(entries) do
  if wanted then
    local claim = turn_to(i)
    look(value_of(K))
    fences[i] = take(claim, ttl, wanted)
  end
end
return {0, fences}
