-- The tokens of a key. Arguments: prefix, key, what to do, and what that needs.
local key, what, digest, ends = args[2], args[3], args[4], args[5]
local name = tokens_name(key)

local function is_live(of) return (tonumber(call('ZSCORE', name, of) or 0)) > now end

local function has_message()
  local last = -1
  while true do
    local member = call('LINDEX', messages_name(key), last)
    if not member then
      return false
    end
    local _, expires = struct.unpack('>dd', member)
    if expires > now then
      return true
    end
    last = last - 1
  end
end

local actions = {}

function actions.create()
  call('ZADD', name, ends, digest)
  call('ZREMRANGEBYSCORE', name, '-inf', now)
  local latest = call('ZRANGE', name, -1, -1, 'WITHSCORES')
  if latest[2] then
    call('EXPIREAT', name, latest[2])
  end
  return {}
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
  local any = call('ZCOUNT', name, '(' .. string.format('%.6f', now), '+inf') > 0
  return {any or has_message(), is_live(digest)}
end

return cmsgpack.pack(actions[what]())
