-- What a claim finds that asks for a share: an answer as above, or nil and an entry to be taken by take().
local function ask(claim, ttl, mode, tail, share_units, share_limit, meta)
  look(value_of(K))
  local holder, holder_ttl, fence = holder_in(meta)

  if value == claim then
    redis.call('PEXPIRE', K, ttl)
    -- The memory was deleted behind our back: another fence is the best that can be done.
    if holder ~= claim then return {'held', remember(claim, ttl, tail)} end
    keep_memory(tonumber(fence), ttl)
    return {'held', fence}
  end

  local entry, there = standing(claim), value
  if entry then refresh(claim, entry, ttl) end
  -- Those in line come first.
  if settle(claim) then return {'again'} end
  if value == claim then return {'held', whole(last)} end
  entry = entry and entry_of(claim)
  if entry and entry.fence > 0 then return {'held', whole(entry.fence)} end
  if value ~= there then
    meta = redis.call('GET', M)
    holder, holder_ttl = holder_in(meta)
  end

  local agreed = limit or (holder == value and 1)
  if not agreed then
    local _, first = first_waiting()
    if steps <= 0 then return {'again'} end
    agreed = first and first.limit
  end
  local wanted = {
    expiry = ms + ttl, ttl = tonumber(ttl), units = tonumber(share_units), limit = tonumber(share_limit),
    fence = 0, since = 0, tail = tail,
  }
  if not entry and agreed and not agree(agreed, wanted.limit) then return {'disagrees', agreed} end

  if not entry and fits(wanted) and redis.call('ZCARD', L) == held then return nil, wanted end

  local left
  if limit then
    -- Who wants to be alone waits for the last of them, who wants less for the first.
    local lapse = redis.call(wanted.units == wanted.limit and 'ZREVRANGE' or 'ZRANGE', H, 0, 0, 'WITHSCORES')
    left = lapse[2] - ms
  else
    left = redis.call('PTTL', K)
    if holder == value and (left < 0 or left > holder_ttl) then
      -- The server's clock was set back, or somebody took the TTL away: no hold of ours outlasts its ttl.
      redis.call('PEXPIRE', K, holder_ttl)
      left = holder_ttl
    end
  end

  local rank
  if mode == 'try' then
    -- One that stood in line until now counts those ahead of it, not all.
    rank = (redis.call('ZRANK', L, claim) or redis.call('ZCARD', L)) - held
    drop(claim, entry)
    -- It may have been in the way of those behind it.
    if entry then settle('') end
  else
    if not entry then
      join(claim)
      write(claim, wanted)
      keep_line(ttl)
    end
    rank = redis.call('ZRANK', L, claim) - held
  end
  -- Who stands behind one that does not fit gets in when that one dies, too.
  if limit and rank > 0 and blocked then left = math.min(left, blocked) end

  local first, first_entry = '', ''
  if limit then
    first = redis.call('ZRANGE', L, 0, 0)[1]
    first_entry = redis.call('HGET', W, first) or ''
  end
  return {
    mode == 'try' and 'refused' or 'waiting', rank, left, whole(now),
    holder == value and meta or '', first, first_entry,
  }
end

-- Grants what a claim asked for that fits.
local function take(claim, ttl, wanted)
  if wanted.limit > 1 then join(claim) end
  local granted = grant(claim, wanted)
  if limit then keep_line(ttl) end
  save()
  return granted
end
