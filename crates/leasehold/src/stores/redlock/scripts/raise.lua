-- KEYS: K V.  ARGV: claim, fence.
-- Raises the counter to the fence, if the claim is there. Returns the counter, or '' without it.
local K, V = KEYS[1], KEYS[2]
local claim, fence = ARGV[1], tonumber(ARGV[2])
local record = redis.call('GET', V)
local holder, ttl = holder_in(record)
local counter = counter_in(record)
if value_of(K) ~= claim or holder ~= claim or not counter then return '' end
if counter < fence then
  counter = fence
  keep(V, at_counter(record, counter), micros(), counter, ttl)
end
return whole(counter)
