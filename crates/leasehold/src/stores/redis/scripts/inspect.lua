-- KEYS: K M L W H.
-- Returns {now, whether somebody holds who does not stand in line, pttl of K, M if it tells of the
-- present hold, then of each in line, dead ones left out: claim, ticket, entry}
now = micros()
parse(value_of(K))
local meta = redis.call('GET', M)
local holder = holder_in(meta)
local answer = {
  whole(now), value and not limit and 1 or 0, redis.call('PTTL', K), holder and holder == value and meta or '',
}
local line = redis.call('ZRANGE', L, 0, -1, 'WITHSCORES')
for i = 1, #line, 2 do
  local entry = entry_of(line[i])
  if entry and lives(entry) then
    answer[#answer + 1] = line[i]
    answer[#answer + 1] = whole(tonumber(line[i + 1]))
    answer[#answer + 1] = redis.call('HGET', W, line[i])
  end
end
return answer
