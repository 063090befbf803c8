-- KEYS: K M L W H of each claim.  ARGV: ttl, then of each: claim, 'held' or 'waiting'.
-- Returns 1 for each claim that is extended, 0 for each that is lost.
now = micros()
local ttl, outcome = ARGV[1], {}
for i = 1, #KEYS / 5 do
  K, M, L, W, H = KEYS[5 * i - 4], KEYS[5 * i - 3], KEYS[5 * i - 2], KEYS[5 * i - 1], KEYS[5 * i]
  last = nil
  local claim, waiting = ARGV[2 * i], ARGV[2 * i + 1] == 'waiting'
  local found = value_of(K)
  if found == claim then
    redis.call('PEXPIRE', K, ttl)
    local fence = last_fence(redis.call('GET', M))
    if fence then keep_memory(fence, ttl) end
    outcome[i] = 1
  else
    look(found)
    local entry = standing(claim)
    if entry and (waiting or entry.fence > 0) then
      refresh(claim, entry, ttl)
      outcome[i] = 1
    else
      -- Also a holder that is found back in the line: a failover rewound its grant.
      drop(claim, entry)
      outcome[i] = 0
    end
    settle('')
  end
end
return outcome
