-- KEYS: K M L W.  ARGV: claim.
-- Returns 'released' | 'withdrawn' | 'gone', and 'again' beside it if dead claims are left to pass over.
local K, M, L, W = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local value = value_of(K)
local left = 'gone'
if value == ARGV[1] then
  redis.call('DEL', K)
  left, value = 'released', false
end
local outcome
if redis.call('EXISTS', L) == 1 then
  if withdraw(L, W, ARGV[1]) and left == 'gone' then left = 'withdrawn' end
  if not value then outcome = hand(K, M, L, W, micros(), '') end
end
return {left, outcome == 'again' and outcome or ''}
