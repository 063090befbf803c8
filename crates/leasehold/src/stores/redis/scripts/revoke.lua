-- KEYS: K M L W.  ARGV: claim.
-- Returns 1 if the claim was there. Never touches a K that the memory does not know as ours.
local K, M, L, W = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local claim = ARGV[1]
local value = value_of(K)
local holder, _, _, session = holder_in(redis.call('GET', M))
if value == claim and holder == claim then
  redis.call('DEL', K)
  value = false
else
  local entry = redis.call('HGET', W, claim)
  if not withdraw(L, W, claim) then return 0 end
  session = entry and string.match(entry, '^%d+ %d+ (%S+)')
end
if session then wake(session, 'lost ' .. claim) end
if not value then hand(K, M, L, W, micros(), '') end
return 1
