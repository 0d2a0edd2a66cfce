-- Reads pieces of logs. Arguments: prefix, bytes of a page; then for each read key, after, limit.
-- Gives for each: the head (two doubles, or '' where there is none) and the members of its unexpired messages.
-- One message more than fits is given, where there is one, so that the caller sees that there are more.
local most_bytes = args[2]

-- The place of the first message after a cursor: found by halves, for mids ascend.
local function place_after(name, after)
  local low, high = 0, call('LLEN', name)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if struct.unpack('>d', call('LINDEX', name, middle)) > after then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

local function read(key, after, limit)
  local found, bytes, step = {}, 0, 8
  local name = messages_name(key)
  local place = place_after(name, after)
  while true do
    local members = call('LRANGE', name, place, place + step - 1)
    place = place + #members
    for _, member in ipairs(members) do
      local _, expires = struct.unpack('>dd', member)
      if expires > now then
        found[#found + 1] = member
        bytes = bytes + #member - 16
        if #found > limit or (bytes > most_bytes and #found > 1) then
          return found
        end
      end
    end
    if #members < step then
      return found
    end
    step = math.min(step * 2, 128)
  end
end

local answers = {}
for at = 3, #args, 3 do
  local key = args[at]
  local head = call('GET', head_name(key))
  answers[#answers + 1] = head and string.sub(head, 1, 16) or ''
  answers[#answers + 1] = read(key, args[at + 1], args[at + 2])
end
return cmsgpack.pack(answers)
