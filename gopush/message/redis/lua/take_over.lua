-- Takes logs over from another store, however often: what is there of them is replaced up to their last mid, and what was
-- appended here after it stays; a head never goes back. Arguments: prefix, seconds a head outlives its messages; then for
-- each log key, last, trimmed, end, how many messages and ids, the messages (members of m:<key>), the ids (id, value,
-- seconds to live).
local head_life = args[2]

local function text(number) return string.format('%.0f', number) end

local at = 3
while at <= #args do
  local key, last, trimmed, ends, count, ids = unpack(args, at, at + 5)
  at = at + 6
  local name, members = messages_name(key), {}
  for i = 0, count - 1 do
    members[#members + 1] = args[at + i]
  end
  at = at + count
  local packed = call('GET', head_name(key))
  if packed then
    local last_here, trimmed_here, _, ends_here = struct.unpack('>dddd', packed)
    if last_here > last then
      for _, member in ipairs(call('LRANGE', name, 0, -1)) do
        if struct.unpack('>d', member) > last then
          members[#members + 1] = member
        end
      end
      last, trimmed = last_here, math.max(trimmed, trimmed_here)
    end
    ends = math.max(ends, ends_here)
  end
  local soonest, largest = math.huge, 0
  for _, member in ipairs(members) do
    local _, expires = struct.unpack('>dd', member)
    soonest = math.min(soonest, expires)
    largest = math.max(largest, #member - 16)
  end
  call('DEL', name)
  for first = 1, #members, 1000 do
    call('RPUSH', name, unpack(members, first, math.min(first + 999, #members)))
  end
  if #members > 0 then
    call('EXPIREAT', name, text(ends))
  end
  local life = math.max(1, math.ceil(ends - now) + (#members > 0 and head_life or 0))
  call('SET', head_name(key), struct.pack('>ddddd', last, trimmed, soonest, ends, largest), 'EX', text(life))
  for _ = 1, ids do
    call('SET', prefix .. 'i:' .. key .. '\0' .. args[at], args[at + 1], 'EX', text(args[at + 2]))
    at = at + 3
  end
end
return ''
