-- KEYS: K M L W of each claim.  ARGV: ttl, then of each: claim, 'held' or 'waiting'.
-- Returns 1 for each claim that is extended, 0 for each that is lost.
local ttl, now, outcome = ARGV[1], micros(), {}
for i = 1, #KEYS / 4 do
  local K, M, L, W = KEYS[4 * i - 3], KEYS[4 * i - 2], KEYS[4 * i - 1], KEYS[4 * i]
  local claim, waiting = ARGV[2 * i], ARGV[2 * i + 1] == 'waiting'
  local value = value_of(K)
  local entry = waiting and value ~= claim and in_line(L, W, now, claim)
  if value == claim then
    redis.call('PEXPIRE', K, ttl)
    local fence = last_fence(redis.call('GET', M))
    if fence then keep_memory(M, now, fence, ttl) end
    outcome[i] = 1
  elseif entry then
    local tail = string.match(entry, '^%d+ %d+ (.*)$')
    redis.call('HSET', W, claim, whole(math.floor(now / 1000) + ttl) .. ' ' .. ttl .. ' ' .. tail)
    keep_line(L, W, ttl)
    if not value then hand(K, M, L, W, now, '') end
    outcome[i] = 1
  else
    -- Also a holder that is found back in the line: a failover rewound its grant.
    withdraw(L, W, claim)
    outcome[i] = 0
  end
end
return outcome
