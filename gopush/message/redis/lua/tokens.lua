-- The tokens of a key. Arguments: prefix, key, what to do, and what that needs. A check also gives a strange name: nobody
-- has created its key.
local key, what, digest, ends, most = args[2], args[3], args[4], args[5], args[6]
local name = tokens_name(key)

local function is_live(of) return (tonumber(call('ZSCORE', name, of) or 0)) > now end

-- The newest 16 messages are looked at, and behind them so many bytes and messages in all. Behind these the head tells,
-- within a minute, when the last one expires, or one that was trimmed would have.
local MOST_MESSAGES, MOST_BYTES = 256, 1048576

local function has_message()
  local bytes = 0
  for last = -1, -MOST_MESSAGES, -1 do
    local member = try_call('LINDEX', messages_name(key), last)
    if not member then
      return false
    end
    if type(member) == 'table' then
      take_error(member, 'LINDEX', messages_name(key), last)
      return false
    end
    local _, expires = times_of(member)
    if expires > now then
      return true
    end
    if last < -16 then
      bytes = bytes + #member
    end
    if bytes > MOST_BYTES then
      break
    end
  end
  local _, _, _, _, ends_here = head_of(key)
  return ends_here > now + 60
end

local actions = {}

function actions.create()
  call('ZADD', name, ends, digest)
  call('ZREMRANGEBYSCORE', name, '-inf', now)
  local dropped = call('ZREMRANGEBYRANK', name, 0, -1 - most)
  local latest = call('ZRANGE', name, -1, -1, 'WITHSCORES')
  if latest[2] then
    call('EXPIREAT', name, latest[2])
  end
  return {dropped}
end

function actions.revoke()
  local live = is_live(digest)
  call('ZREM', name, digest)
  return {live}
end

function actions.list()
  return call('ZRANGEBYSCORE', name, '(' .. string.format('%.6f', now), '+inf', 'WITHSCORES')
end

function actions.check()
  local least = '(' .. string.format('%.6f', now)
  local count = try_call('ZCOUNT', name, least, '+inf')
  if type(count) == 'table' then
    take_error(count, 'ZCOUNT', name, least, '+inf')
    return {false, false, strange}
  end
  return {count > 0 or has_message(), is_live(digest), strange}
end

return cmsgpack.pack(actions[what]())
