-- KEYS: K M L W H.  ARGV: claim.
-- Returns 1 if the claim was there, else 0, and 'again' beside it if there is more to pass over or to grant.
-- Never touches a K that the memory does not know as ours.
local claim = ARGV[1]
now = micros()
look(value_of(K))
local holder, _, _, session = holder_in(redis.call('GET', M))
local there = value == claim and holder == claim
if there then
  redis.call('DEL', K)
  value = false
else
  local entry = standing(claim)
  drop(claim, entry)
  there = entry ~= nil
  session = entry and session_in(entry.tail)
end
if there then wake(session, 'lost ' .. claim) end
return {there and 1 or 0, settle('') and 'again' or ''}
