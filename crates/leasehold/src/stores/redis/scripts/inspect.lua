-- KEYS: K M L W.
-- Returns {now, whether K exists, pttl of K, M if it tells of the present hold, then of each in
-- line, dead ones left out: claim, ticket, entry}
local K, M, L, W = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now, value, meta = micros(), value_of(K), redis.call('GET', M)
local holder = holder_in(meta)
local answer = {whole(now), value and 1 or 0, redis.call('PTTL', K), holder and holder == value and meta or ''}
local line = redis.call('ZRANGE', L, 0, -1, 'WITHSCORES')
for i = 1, #line, 2 do
  local entry = in_line(L, W, now, line[i])
  if entry then
    answer[#answer + 1] = line[i]
    answer[#answer + 1] = whole(tonumber(line[i + 1]))
    answer[#answer + 1] = entry
  end
end
return answer
