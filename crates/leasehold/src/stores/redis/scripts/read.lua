-- KEYS: R, the record of a key: sixteen digits of its version, then its bytes.
-- Returns {seconds, microseconds, R}
local time = redis.call('TIME')
return {time[1], time[2], redis.call('GET', KEYS[1])}
