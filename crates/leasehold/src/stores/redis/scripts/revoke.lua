-- KEYS: K M L W.  ARGV: claim.
-- Returns 1 if the claim was there. Never touches a K that the memory does not know as ours.
local K, M, L, W = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local claim = ARGV[1]
local now, value = micros(), value_of(K)
local holder, _, _, session = holder_in(redis.call('GET', M))
if value == claim and holder == claim then
  redis.call('DEL', K)
  value = false
else
  local entry = in_line(L, W, now, claim)
  withdraw(L, W, claim)
  if not entry then return 0 end
  session = string.match(entry, '^%d+ %d+ (%S+)')
end
wake(session, 'lost ' .. claim)
if not value then hand(K, M, L, W, now, '') end
return 1
