-- KEYS: K V of each key.
-- Returns now, then of each: whether K exists, its pttl, V if it tells of the present hold or ''.
local answer = {whole(micros())}
for i = 1, #KEYS / 2 do
  local K, V = KEYS[2 * i - 1], KEYS[2 * i]
  local value, record = value_of(K), redis.call('GET', V)
  answer[#answer + 1] = value and 1 or 0
  answer[#answer + 1] = redis.call('PTTL', K)
  answer[#answer + 1] = value and holder_in(record) == value and record or ''
end
return answer
