-- KEYS: K V.  ARGV: claim, 'give back', 'leave' or 'revoke', attempt, channel of the key.
-- Returns 1 if the claim was there. What a try gives back is that try's or an earlier one's.
local K, V = KEYS[1], KEYS[2]
local claim, how, attempt, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if value_of(K) ~= claim then return 0 end
local record = redis.call('GET', V)
local holder, _, session = holder_in(record)
local known = holder == claim
-- Data of an application that happens to look like a claim is not a hold.
if how == 'revoke' and not known then return 0 end
if how == 'give back' and known and attempt_in(record) > attempt then return 0 end
redis.call('DEL', K)
if how ~= 'give back' then
  redis.call('PUBLISH', channel, 'free ' .. (known and attempt_in(record) or ''))
end
if how == 'revoke' then redis.call('PUBLISH', 'leasehold:wake:' .. session, 'lost ' .. claim) end
return 1
