-- Writes under a fence: refused if it is smaller than the greatest that was seen.
--
-- keys: where the greatest fence is kept, then the keys of the command
-- args: the fence; for how many milliseconds to remember it (0: for ever); the command, word by word
--
-- Answers what the command does, or with the error STALEFENCE. Fences are compared as texts: they
-- are whole numbers of 64 bits, and Lua's are exact to 53.
local function is_smaller(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function write(keys, args)
  local token, keep = args[1] or '', tonumber(args[2])
  if #token > 20 or not (token == '0' or token:match('^[1-9]%d*$')) then
    return redis.error_reply('NOFENCE the first argument is not a fence')
  end
  if not keep or keep < 0 or keep % 1 ~= 0 then
    return redis.error_reply('NOFENCE the second argument is not a number of milliseconds')
  end
  local greatest = redis.call('GET', keys[1])
  if greatest and is_smaller(token, greatest) then
    return redis.error_reply('STALEFENCE token ' .. token .. ', greatest ' .. greatest)
  end
  local command, answer = {}, false
  for at = 3, #args do command[at - 2] = args[at] end
  if #command > 0 then
    -- First: a command that fails was no write, and the fence of a writer that never wrote is
    -- not seen. The step is atomic either way.
    answer = redis.pcall(unpack(command))
    if type(answer) == 'table' and answer.err then return answer end
  end
  if keep > 0 then
    redis.call('SET', keys[1], token, 'PX', string.format('%d', keep))
  else
    redis.call('SET', keys[1], token)
  end
  return answer
end
