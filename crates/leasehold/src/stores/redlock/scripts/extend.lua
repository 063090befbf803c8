-- KEYS: K V of each claim.  ARGV: ttl, then of each: claim, fence.
-- Returns of each the counter, or '' if the claim is not there: nothing begins here.
local ttl, now, outcome = ARGV[1], micros(), {}
for i = 1, #KEYS / 2 do
  local K, V = KEYS[2 * i - 1], KEYS[2 * i]
  local claim, fence = ARGV[2 * i], tonumber(ARGV[2 * i + 1])
  local record = redis.call('GET', V)
  local counter = counter_in(record)
  if value_of(K) == claim and holder_in(record) == claim and counter then
    redis.call('PEXPIRE', K, ttl)
    if counter < fence then
      counter = fence
      record = at_counter(record, counter)
    end
    keep(V, record, now, counter, ttl)
    outcome[i] = whole(counter)
  else
    outcome[i] = ''
  end
end
return outcome
