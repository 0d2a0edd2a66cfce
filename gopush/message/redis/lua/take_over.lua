-- Takes messages over from another store, however often; a head never goes back. Arguments: prefix, seconds a head
-- outlives its messages; then for each log: key; up to which mid its messages here are replaced (0: none); last,
-- trimmed, end; how many messages, ids and mids follow; the messages (members of m:<key>, ascending), the ids (id,
-- value, seconds to live), the mids of those that stay, although they would be replaced. Where a head is strange: an
-- error.
local head_life = args[2]

local function text(number) return string.format('%.0f', number) end

local function mid_of(member) return (times_of(member)) end

-- What is here and stays, before the new ones and among them; nil where all of it stays and comes before them. The new
-- ones themselves are here where the call is made again because its answer was lost.
local function staying(name, replaced, new, stays)
  local tail = call('LINDEX', name, -1)
  if not tail or (replaced == 0 and (not new[1] or mid_of(tail) < mid_of(new[1]))) then
    return nil
  end
  local found, is_new = {}, {}
  for _, member in ipairs(new) do
    is_new[mid_of(member)] = true
  end
  for _, member in ipairs(call('LRANGE', name, 0, -1)) do
    local mid = mid_of(member)
    if (mid > replaced or stays[mid]) and not is_new[mid] then
      found[#found + 1] = member
    end
  end
  return found
end

local function in_order(one, other) return mid_of(one) < mid_of(other) end

local function take(key, replaced, last, trimmed, ends, new, stays)
  local name = messages_name(key)
  local head, last_here, trimmed_here, soonest, ends_here = head_of(key)
  if head == nil then
    return
  end
  last, trimmed, ends = math.max(last, last_here), math.max(trimmed, trimmed_here), math.max(ends, ends_here)
  local largest = head and largest_of(head) or 0
  local members = {}
  for _, member in ipairs(new) do
    if mid_of(member) > trimmed then
      members[#members + 1] = member
    end
  end
  local stay = staying(name, replaced, members, stays)
  if stay then
    local mixed = stay[1] and members[1] and mid_of(stay[1]) < mid_of(members[#members])
    for _, member in ipairs(stay) do
      members[#members + 1] = member
    end
    if mixed then
      table.sort(members, in_order)
    end
    call('DEL', name)
    soonest, largest = math.huge, 0
  end
  for _, member in ipairs(members) do
    local _, expires = struct.unpack('>dd', member)
    soonest = math.min(soonest, expires)
    largest = math.max(largest, #member - 16)
  end
  local count = call('LLEN', name)
  for first = 1, #members, 1000 do
    count = call('RPUSH', name, unpack(members, first, math.min(first + 999, #members)))
  end
  local life = math.max(1, math.ceil(ends - now), math.ceil(call('PTTL', head_name(key)) / 1000))
  if count > 0 then
    call('EXPIREAT', name, text(ends))
    life = math.max(life, math.ceil(ends - now) + head_life)
  else
    ends = 0 -- so that the next append gives the head its life anew
  end
  call('SET', head_name(key), struct.pack('>ddddd', last, trimmed, soonest, ends, largest), 'EX', text(life))
end

local at = 3
while at <= #args do
  local key, replaced, last, trimmed, ends, count, ids, mids = unpack(args, at, at + 7)
  at = at + 8
  local members = {}
  for i = 0, count - 1 do
    members[#members + 1] = args[at + i]
  end
  at = at + count
  local stays = {}
  for i = at + 3 * ids, at + 3 * ids + mids - 1 do
    stays[args[i]] = true
  end
  take(key, replaced, last, trimmed, ends, members, stays)
  if strange ~= '' then
    return strange_error()
  end
  for _ = 1, ids do
    call('SET', prefix .. 'i:' .. key .. '\0' .. args[at], args[at + 1], 'EX', text(args[at + 2]))
    at = at + 3
  end
  at = at + mids
end
return 1
